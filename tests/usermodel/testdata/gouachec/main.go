// Command gouachec is the compiler with the models of this module.
package main

import (
	"github.com/gouache-ml/gouache/codegen/driver"

	_ "example.com/mine/classifier"
	_ "example.com/mine/language"
)

func main() { driver.Main() }
