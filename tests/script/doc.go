// Package script tests the command-line tools by the scripts in testdata:
// each *.txtar file runs commands and says what they print, in the language of
// github.com/rogpeppe/go-internal/testscript.
//
// Scripts know the commands gouachec and irdump, and besides the real systems
// one named line, a straight line through points, which compiles in a second.
//
//	go test ./tests/script                      run them
//	go test ./tests/script -run 'Script/irdump' some of them
//	go test ./tests/script -update              rewrite what cmp compares with
package script
