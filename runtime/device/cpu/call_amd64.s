//go:build linux

#include "textflag.h"

// func call(kernel, stackTop, args uintptr, c0, c1 int64, scratch uintptr)
//
// The System V ABI keeps BX, BP, R12-R15. R14 and X15, which Go's own ABI reserves, need no care:
// this is an ABI0 function, and its wrapper restores both.
TEXT ·call(SB), NOSPLIT, $0-48
	MOVQ kernel+0(FP), AX
	MOVQ stackTop+8(FP), BX
	MOVQ args+16(FP), DI
	MOVQ c0+24(FP), SI
	MOVQ c1+32(FP), DX
	MOVQ scratch+40(FP), CX
	MOVQ SP, R12
	MOVQ BX, SP
	ANDQ $~63, SP
	CALL AX
	MOVQ R12, SP
	VZEROUPPER
	RET

// func pause()
TEXT ·pause(SB), NOSPLIT, $0-0
	PAUSE
	RET
