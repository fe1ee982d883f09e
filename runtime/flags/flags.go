// Package flags parses the flags of programs that have no commands, such as a
// trainer's bench: as the standard library does, but a mistake is one line.
package flags

import (
	"flag"
	"fmt"
	"io"
)

// Set is a set of flags whose mistakes are errors and nothing else.
func Set(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// Parse parses args, which are flags alone, or flags and up to most arguments. For -help it
// writes the flags to usage and gives flag.ErrHelp.
func Parse(f *flag.FlagSet, args []string, most int, usage io.Writer) error {
	switch err := f.Parse(args); {
	case err == flag.ErrHelp:
		f.SetOutput(usage)
		f.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w; see -help", err)
	case f.NArg() > most:
		return fmt.Errorf("unexpected argument %q; see -help", f.Arg(most))
	}
	return nil
}
