// Package text is the text form of the IR at every stage: one grammar, one
// printer, one parser. Printing what was parsed gives the same text again.
//
// A file holds modules (graphs), kernels, or a system (kernels and the plan
// that launches them):
//
//	module @prior
//	global @embed.w : f32[512,64] param init=normal(0x1p-06) decay !scope.go:75
//	func @eval(%text : i32[4,16]) {
//	  block @embed {
//	    %7 = take @embed.w, %text : f32[4,16,64] !layer.go:54
//	  }
//	  result out = %7
//	  update @embed.w = %9
//	}
//
//	system @demo
//	kernel @map_0d1e(#0 f32[64] in, #1 f32[64] out) grid(i0<64) tile(1,64) chunks(1) {
//	  %0 = load #0[i0] : f32
//	  store #1[i0], %0
//	}
//	model @prior fingerprint=1f state=256 {
//	  global @embed.w : f32[64] param offset=0 !-
//	  program @eval work=256 flops=0 {
//	    buffer #0 "@embed.w" : f32[64] bytes=256 state offset=0 live=-1:1
//	    launch @map_0d1e(#0, #0) values="%7" !layer.go:54
//	  }
//	}
//
// One value stands on a line, floats are hexadecimal, attributes are sorted,
// and !file:line is the line of the model that asked for it ("-": none).
// Comments run from // to the end of the line. Names other than letters,
// digits, dots and underscores are quoted. Ops are read by their prototypes in
// the op table, so a program that parses graphs imports package ops.
//
// The package checks what it needs to build the IR, type rules included; that
// the result is well formed in every respect is for ir/verify to say.
//
// Start at Parse, Module and System.
package text
