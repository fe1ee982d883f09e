; Kernels for the tests of this package. Rebuild with testdata/build.sh.

@table = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]

; chunks(args): out[c] = table[c % 4] * c, with out = args[0]; scratch[0] counts this worker's chunks
define void @chunks(ptr %args, i64 %c0, i64 %c1, ptr %scratch) nounwind {
entry:
  %out = load ptr, ptr %args
  br label %loop
loop:
  %c = phi i64 [ %c0, %entry ], [ %n, %loop ]
  %i = and i64 %c, 3
  %tp = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %t = load i64, ptr %tp
  %v = mul i64 %t, %c
  %p = getelementptr i64, ptr %out, i64 %c
  store i64 %v, ptr %p
  %s = load i64, ptr %scratch
  %s1 = add i64 %s, 1
  store i64 %s1, ptr %scratch
  %n = add i64 %c, 1
  %more = icmp slt i64 %n, %c1
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

; spin(args): adds args[1] times to args[2] without a call, to keep a worker busy
define void @spin(ptr %args, i64 %c0, i64 %c1, ptr %scratch) nounwind {
entry:
  %np = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %np
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  %x = load volatile i64, ptr %scratch
  %y = add i64 %x, 1
  store volatile i64 %y, ptr %scratch
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

; stack(args): fills 128 KiB of stack and writes its sum to args[c + 1]
define void @stack(ptr %args, i64 %c0, i64 %c1, ptr %scratch) nounwind {
entry:
  %a = alloca [16384 x i64], align 64
  br label %fill
fill:
  %i = phi i64 [ 0, %entry ], [ %j, %fill ]
  %p = getelementptr [16384 x i64], ptr %a, i64 0, i64 %i
  store volatile i64 %i, ptr %p
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, 16384
  br i1 %more, label %fill, label %add
add:
  %k = phi i64 [ 0, %fill ], [ %l, %add ]
  %s = phi i64 [ 0, %fill ], [ %t, %add ]
  %q = getelementptr [16384 x i64], ptr %a, i64 0, i64 %k
  %v = load volatile i64, ptr %q
  %t = add i64 %s, %v
  %l = add i64 %k, 1
  %again = icmp slt i64 %l, 16384
  br i1 %again, label %add, label %exit
exit:
  %c = add i64 %c0, 1
  %o = getelementptr i64, ptr %args, i64 %c
  store i64 %t, ptr %o
  ret void
}
