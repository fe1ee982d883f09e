package script

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/codegen/dump"
	"github.com/gouache-ml/gouache/models/system"
	_ "github.com/gouache-ml/gouache/models/systems"
)

var update = flag.Bool("update", false, "rewrite the expected outputs that cmp compares with")

func TestMain(m *testing.M) {
	for _, s := range []system.System{
		{Name: "line", Doc: "a straight line through points", Build: line},
		{Name: "bent", Doc: "a model with an error", Build: bent},
	} {
		if err := system.Register(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	testscript.Main(m, map[string]func(){"gouachec": driver.Main, "irdump": dump.Main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "GOUACHE_LLVM="+os.Getenv("GOUACHE_LLVM"))
			return nil
		},
	})
}
