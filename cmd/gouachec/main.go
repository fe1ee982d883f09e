package main

import (
	"github.com/gouache-ml/gouache/codegen/driver"
	_ "github.com/gouache-ml/gouache/models/systems" // registers demo, emoji and paper
)

func main() { driver.Main() }
