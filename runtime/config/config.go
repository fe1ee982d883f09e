package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/gouache-ml/gouache/runtime/disk"
	"github.com/pelletier/go-toml/v2"
)

// Load reads file (none if "") over the defaults in cfg, a pointer to a struct,
// then applies overrides in order, then calls cfg's Validate method if it has one.
func Load(cfg any, file string, overrides []string) error {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("%s: %w; give an existing TOML file", file, errors.Unwrap(err))
		}
		if err := Parse(cfg, file, text); err != nil {
			return err
		}
	}
	for _, o := range overrides {
		if err := Set(cfg, o); err != nil {
			return err
		}
	}
	if v, ok := cfg.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			where := "configuration"
			if file != "" {
				where = file
			}
			if len(overrides) > 0 {
				where += " with overrides"
			}
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	return nil
}

// Parse reads TOML text over cfg. The name stands for the file in errors.
func Parse(cfg any, name string, text []byte) error {
	if err := checkTarget(cfg); err != nil {
		return err
	}
	err := decode(cfg, text)
	if err == nil {
		return nil
	}
	line, fact := describe(reflect.TypeOf(cfg).Elem(), text, err)
	if line > 0 {
		return fmt.Errorf("%s:%d: %s", name, line, fact)
	}
	return fmt.Errorf("%s: %s", name, fact)
}

// Set applies one override, "dotted.key=value". The value is read by the type
// of the field: strings need no quotes, lists no brackets ("mesh=2,4").
func Set(cfg any, override string) error {
	if err := checkTarget(cfg); err != nil {
		return err
	}
	key, value, ok := strings.Cut(override, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return fmt.Errorf("override %q: want key=value", override)
	}
	fail := func(fact string) error { return fmt.Errorf("override %q: %s", override, fact) }
	schema := reflect.TypeOf(cfg).Elem()
	path := strings.Split(key, ".")
	field, ok := lookup(schema, path)
	if !ok {
		return fail(unknownKey(schema, path))
	}
	if isTable(field) {
		return fail(fmt.Sprintf("%s is a table; set one of its keys: %s", key, strings.Join(childKeys(schema, path), ", ")))
	}
	literal, err := tomlValue(field, value)
	if err != nil {
		return fail(err.Error())
	}
	quoted := make([]string, len(path))
	for i, p := range path {
		quoted[i] = tomlString(p)
	}
	text := []byte(strings.Join(quoted, ".") + " = " + literal)
	if err := decode(cfg, text); err != nil {
		_, fact := describe(schema, text, err)
		if _, ok := errors.AsType[*toml.StrictMissingError](err); !ok && !strings.Contains(fact, "want ") {
			fact = fmt.Sprintf("%s: want %s, got %s", key, typeName(field), value)
		}
		return fail(fact)
	}
	return nil
}

// Format gives the configuration as TOML, with the schema's comments.
func Format(cfg any) ([]byte, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.SetIndentTables(false)
	if err := enc.Encode(cfg); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Save writes the configuration as TOML.
func Save(cfg any, path string) error {
	text, err := Format(cfg)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return disk.Replace(path, text)
}

func checkTarget(cfg any) error {
	if t := reflect.TypeOf(cfg); t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("internal: config target is %T, want a pointer to a struct", cfg)
	}
	return nil
}

// decode leaves cfg as it was when the text has an error.
func decode(cfg any, text []byte) error {
	target := reflect.ValueOf(cfg).Elem()
	work := reflect.New(target.Type())
	work.Elem().Set(clone(target))
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(work.Interface()); err != nil {
		return err
	}
	target.Set(work.Elem())
	return nil
}

// clone copies a value so deeply that decoding into it can't reach the original:
// the decoder writes lists in place, and defaults may share theirs.
func clone(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(clone(v.Elem()))
		return c
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(clone(v.Index(i)))
		}
		return c
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			c.SetMapIndex(it.Key(), clone(it.Value()))
		}
		return c
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		c.Set(v)
		for i := range v.NumField() {
			if c.Field(i).CanSet() {
				c.Field(i).Set(clone(v.Field(i)))
			}
		}
		return c
	}
	return v
}

// describe turns the decoder's error into a line number and one line of fact.
func describe(schema reflect.Type, text []byte, err error) (line int, fact string) {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		first := &strict.Errors[0]
		line, _ = first.Position()
		fact = unknownKey(schema, first.Key())
		if n := len(strict.Errors); n > 1 {
			fact += fmt.Sprintf(" (and %d more)", n-1)
		}
		return line, fact
	}
	wrong, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return 0, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "toml: "), "\n", " ")
	}
	line, column := wrong.Position()
	message := strings.TrimPrefix(wrong.Error(), "toml: ")
	key := strings.Join(wrong.Key(), ".")
	field, known := lookup(schema, wrong.Key())
	if key == "" || !known || strings.Contains(message, "already defined") {
		return line, message
	}
	if number, ok := strings.CutPrefix(message, "integer value "); ok {
		number, _, _ = strings.Cut(number, " ")
		return line, fmt.Sprintf("%s: want %s, got %s", key, typeName(field), number)
	}
	if number, ok := strings.CutPrefix(message, "negative integer value "); ok {
		number, _, _ = strings.Cut(number, " ")
		return line, fmt.Sprintf("%s: want %s, got %s", key, typeName(field), number)
	}
	if strings.HasPrefix(message, "cannot ") {
		return line, fmt.Sprintf("%s: want %s, got %s", key, typeName(field), valueAt(text, line, column, field.Kind() == reflect.Slice))
	}
	return line, key + ": " + message
}

// valueAt quotes the value that begins at a position of the text, up to the end
// of its line; of a list it gives the whole, not the element at that position.
func valueAt(text []byte, line, column int, list bool) string {
	lines := bytes.Split(text, []byte("\n"))
	if line < 1 || line > len(lines) {
		return "something else"
	}
	s := string(lines[line-1])
	if strings.HasPrefix(strings.TrimSpace(s), "[") && !strings.Contains(s, "=") {
		return "a table"
	}
	if _, value, ok := strings.Cut(s, "="); ok && list {
		s = value
	} else {
		// The reported column is that of the value or of the equals sign before it.
		s = strings.TrimLeft(s[min(max(column-1, 0), len(s)):], "= \t")
	}
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			s = s[:end+2]
		}
	} else if i := strings.IndexByte(s, '#'); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > 40 {
		s = string(r[:40]) + "..."
	}
	return s
}
