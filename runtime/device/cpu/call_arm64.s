//go:build linux

#include "textflag.h"

// func call(kernel, stackTop, args uintptr, c0, c1 int64, scratch uintptr)
//
// R19 and R29 are callee-saved in AAPCS64. R28 holds g, which a signal handler reads: kernels are
// compiled with +reserve-x28 so that it is g at every instruction.
TEXT ·call(SB), NOSPLIT, $16-48
	MOVD kernel+0(FP), R9
	MOVD stackTop+8(FP), R10
	MOVD args+16(FP), R0
	MOVD c0+24(FP), R1
	MOVD c1+32(FP), R2
	MOVD scratch+40(FP), R3
	AND  $~63, R10, R10
	MOVD RSP, R19
	MOVD R10, RSP
	CALL (R9)
	MOVD R19, RSP
	RET

// func pause()
TEXT ·pause(SB), NOSPLIT, $0-0
	YIELD
	YIELD
	YIELD
	YIELD
	YIELD
	YIELD
	YIELD
	YIELD
	RET

// func syncInstructions(addr, size uintptr)
//
// 16 bytes is the smallest cache line the architecture allows; a library is loaded once.
TEXT ·syncInstructions(SB), NOSPLIT, $0-16
	MOVD addr+0(FP), R0
	MOVD size+8(FP), R1
	ADD  R0, R1, R1
	MOVD R0, R2
clean:
	WORD $0xd50b7b22 // dc cvau, x2
	ADD  $16, R2
	CMP  R1, R2
	BLO  clean
	WORD $0xd5033b9f // dsb ish
	MOVD R0, R2
invalidate:
	WORD $0xd50b7522 // ic ivau, x2
	ADD  $16, R2
	CMP  R1, R2
	BLO  invalidate
	WORD $0xd5033b9f // dsb ish
	WORD $0xd5033fdf // isb
	RET
