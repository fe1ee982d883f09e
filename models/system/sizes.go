package system

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/ir"
)

// Sized gives s a Build that makes modules of the given sizes, a struct of numbers,
// texts and further structs, which Resized can change.
func Sized[T any](s System, sizes T, build func(T) ([]*ir.Module, error)) System {
	s.Build = func() ([]*ir.Module, error) { return build(sizes) }
	s.resize = func(settings []string) (System, error) {
		changed := sizes
		for _, setting := range settings {
			if err := set(reflect.ValueOf(&changed).Elem(), setting); err != nil {
				return System{}, fmt.Errorf("-set %s: %w", setting, err)
			}
		}
		return Sized(s, changed, build), nil
	}
	return s
}

// Resized is s with other sizes, each given as KEY=VALUE: names of fields with dots
// between them, in any case. A system that isn't Sized has none.
func (s System) Resized(settings []string) (System, error) {
	if len(settings) == 0 {
		return s, nil
	}
	if s.resize == nil {
		return System{}, fmt.Errorf("-set %s: the sizes of system %q are in its source alone", settings[0], s.Name)
	}
	return s.resize(settings)
}

func set(v reflect.Value, setting string) error {
	key, text, ok := strings.Cut(setting, "=")
	if !ok {
		return fmt.Errorf("want KEY=VALUE")
	}
	for _, name := range strings.Split(key, ".") {
		if v.Kind() != reflect.Struct {
			return fmt.Errorf("there is nothing below it; leave out .%s", name)
		}
		field := v.FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) })
		if !field.CanSet() {
			return fmt.Errorf("there is no %q; one of %s", name, fields(v))
		}
		v = field
	}
	var err error
	switch v.Kind() {
	case reflect.Int:
		var n int64
		n, err = strconv.ParseInt(text, 10, 64)
		v.SetInt(n)
	case reflect.Float64:
		var x float64
		x, err = strconv.ParseFloat(text, 64)
		v.SetFloat(x)
	case reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v.SetBool(b)
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		return fmt.Errorf("it has sizes of its own: %s", fields(v))
	default:
		return fmt.Errorf("a %s can't be given as text", v.Type())
	}
	if err != nil {
		return fmt.Errorf("%q is no %s", text, v.Kind())
	}
	return nil
}

func fields(v reflect.Value) string {
	var names []string
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() {
			names = append(names, f.Name)
		}
	}
	return strings.ToLower(strings.Join(names, ", "))
}
