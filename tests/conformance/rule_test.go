package conformance

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

func TestSamplesAreOfTheirOp(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		for _, s := range op.Samples() {
			if reflect.TypeOf(s.Op) != reflect.TypeOf(op) || s.Op.Name() != op.Name() {
				t.Errorf("a sample is of type %T and name %s", s.Op, s.Op.Name())
			}
		}
	})
}

func TestEveryOpBelongsToOneFamily(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		var in []string
		add := func(ok bool, name string) {
			if ok {
				in = append(in, name)
			}
		}
		_, ok := op.(ops.Inline)
		add(ok, "inline")
		_, ok = op.(ops.Reducer)
		add(ok, "reducer")
		_, ok = op.(ops.Contracter)
		add(ok, "contracter")
		_, ok = op.(ops.Opaque)
		add(ok, "opaque")
		_, ok = op.(ops.Concatenator)
		add(ok, "concatenator")
		_, ok = op.(ops.Expanded)
		add(ok, "expanded")
		if len(in) != 1 {
			t.Errorf("families %v, want exactly one", in)
		}
	})
}

// An attribute must have a text form that can be read back.
func TestAttributesHaveTextForms(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		typ := reflect.TypeOf(op)
		if typ.Kind() != reflect.Struct {
			t.Fatalf("%s is no plain struct", typ)
		}
		for i := 0; i < typ.NumField(); i++ {
			f := typ.Field(i)
			if f.Anonymous {
				continue
			}
			if !f.IsExported() {
				t.Errorf("field %s is not exported: text form and equality would miss it", f.Name)
			}
			_, text := reflect.New(f.Type).Interface().(encoding.TextUnmarshaler)
			_, str := reflect.Zero(f.Type).Interface().(fmt.Stringer)
			switch f.Type.Kind() {
			case reflect.Int, reflect.Float64, reflect.Bool:
				text, str = true, true
			case reflect.Slice:
				text = f.Type.Elem().Kind() == reflect.Int
				str = text
			}
			if !text || !str {
				t.Errorf("attribute %s of type %s has no text form that parses back", f.Name, f.Type)
			}
		}
	})
}

func TestTypeRuleAcceptsSamples(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		for i, s := range op.Samples() {
			outs, err := s.Op.Infer(s.Args)
			if err != nil {
				t.Fatalf("sample %d: %v", i, err)
			}
			if c := s.Op.Cost(s.Args, outs); c.FLOPs < 0 {
				t.Errorf("sample %d costs %d", i, c.FLOPs)
			}
		}
	})
	eachSample(t, func(t *testing.T, s ops.Sample, args []*ir.Tensor) {
		outs, err := s.Op.Infer(s.Args)
		if err != nil {
			t.Fatal(err)
		}
		got := s.Op.Ref(args, outs)
		if len(got) != len(outs) {
			t.Fatalf("%d results, the type rule gives %d", len(got), len(outs))
		}
		for i, g := range got {
			if !g.Type.Equal(outs[i]) || len(g.Data) != outs[i].Len() {
				t.Errorf("result %d is %s with %d elements, the type rule gives %s", i, g.Type, len(g.Data), outs[i])
			}
		}
	})
}

func TestTypeRuleRejectsEmptyTensors(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		for i, s := range op.Samples() {
			for a := range s.Args {
				for d := range s.Args[a].Shape {
					args := append([]ir.Type(nil), s.Args...)
					shape := append([]int(nil), args[a].Shape...)
					shape[d] = 0
					args[a] = args[a].With(shape...)
					_, err := s.Op.Infer(args)
					if err == nil || !strings.Contains(err.Error(), "every extent must be at least 1") {
						t.Fatalf("sample %d, argument %d %s: error %v", i, a, args[a], err)
					}
				}
			}
		}
	})
}

func TestTypeRuleRejectsWrongArguments(t *testing.T) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		variadic := op.Name() == "concat" || op.Name() == "gradient"
		for i, s := range op.Samples() {
			if n := len(s.Args); n > 0 && !variadic {
				if _, err := s.Op.Infer(s.Args[:n-1]); err == nil {
					t.Errorf("sample %d: one argument short is accepted", i)
				}
			}
			if variadic {
				continue
			}
			more := append(append([]ir.Type(nil), s.Args...), ir.T(ir.F32))
			if _, err := s.Op.Infer(more); err == nil {
				t.Errorf("sample %d: one argument too many is accepted", i)
			}
		}
	})
}
