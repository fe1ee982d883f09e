package main

import (
	"github.com/gouache-ml/gouache/codegen/dump"
	_ "github.com/gouache-ml/gouache/models/systems" // registers demo, emoji and paper
)

func main() { dump.Main() }
