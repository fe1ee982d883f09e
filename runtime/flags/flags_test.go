package flags_test

import (
	"bytes"
	"flag"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/flags"
)

func TestMistakesAreOneLine(t *testing.T) {
	for args, want := range map[string]string{
		"-nosuch":                 "flag provided but not defined: -nosuch; see -help",
		"-n x":                    `invalid value "x" for flag -n: parse error; see -help`,
		"-n 3 more":               `unexpected argument "more"; see -help`,
		"-n 3":                    "",
		"-n 3 -- -n":              `unexpected argument "-n"; see -help`,
		"-help":                   flag.ErrHelp.Error(),
		"-n 3 -help":              flag.ErrHelp.Error(),
		"more -n 3":               `unexpected argument "more"; see -help`,
		"-n 99999999999999999999": `invalid value "99999999999999999999" for flag -n: value out of range; see -help`,
	} {
		f := flags.Set("f")
		f.Int("n", 1, "a `number`")
		var usage bytes.Buffer
		got := ""
		if err := flags.Parse(f, strings.Fields(args), 0, &usage); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
		if help := got == flag.ErrHelp.Error(); help != strings.Contains(usage.String(), "-n number") || !help && usage.Len() > 0 {
			t.Errorf("%s: usage %q", args, &usage)
		}
	}
	f := flags.Set("f")
	if err := flags.Parse(f, []string{"a", "b"}, math.MaxInt, io.Discard); err != nil || f.NArg() != 2 {
		t.Errorf("%v, %q", err, f.Args())
	}
}
