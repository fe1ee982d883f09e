// Package driver is the compiler's command line: gouachec, and the same for
// programs that register systems of their own. Such a program is three lines:
//
//	import _ "example.com/my/model" // registers systems
//
//	func main() { driver.Main() }
//
// and is run by `go run` from a go:generate line.
package driver
