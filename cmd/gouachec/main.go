// Command gouachec compiles a system (models at fixed sizes) into a Go package
// with its kernels inside, and a trainer for it. It is meant for go:generate:
//
//	//go:generate go run github.com/gouache-ml/gouache/cmd/gouachec -system demo -o ../../gen/demo
package main

import (
	"github.com/gouache-ml/gouache/codegen/driver"
	_ "github.com/gouache-ml/gouache/models/systems" // registers demo, emoji and paper
)

func main() { driver.Main() }
