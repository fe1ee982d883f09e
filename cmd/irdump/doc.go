// Command irdump shows what the compiler makes of a system: any function at
// any stage, kernels down to assembly, the memory plan, or a page that shows
// one function pass by pass.
//
//	irdump -system demo -stage dce -func prior.train
//	irdump -system demo -html train.html
//	irdump -system demo -memory -func dvae.train -o memory
//	irdump -system demo -kernel matmul -as asm
//	irdump split.ir -from cse -to dce
//	irdump -system demo -bisect -func prior.decode
//
// It adds the systems that come with Gouache to the program in codegen/dump;
// start there. It changes nothing and generates no code.
package main
