// Command gouachec compiles a system (models at fixed sizes) into a Go package
// with its kernels inside, and a trainer for it. It is meant for go:generate:
//
//	//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system demo -o ../../gen/demo
//
// It adds the systems that come with Gouache to the program in codegen/driver;
// start there. A module with systems of its own has a main package like this one.
package main
