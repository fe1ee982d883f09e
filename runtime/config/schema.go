package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// field is one key of a struct.
type field struct {
	name string
	typ  reflect.Type
}

// fields lists a struct's keys in order, embedded structs flattened as TOML sees them.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		typ := indirect(f.Type)
		if f.Anonymous && name == "" && typ.Kind() == reflect.Struct {
			out = append(out, fields(typ)...)
			continue
		}
		if name == "" {
			name = f.Name
		}
		out = append(out, field{name, typ})
	}
	return out
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// isTable says whether a type is a TOML table with fixed keys.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textUnmarshaler) && t.PkgPath() != "time" &&
		!strings.HasPrefix(t.PkgPath(), "github.com/pelletier/go-toml")
}

// lookup finds the type of a dotted key.
func lookup(t reflect.Type, path []string) (reflect.Type, bool) {
	t = indirect(t)
	if len(path) == 0 {
		return t, true
	}
	switch {
	case t.Kind() == reflect.Map:
		return lookup(t.Elem(), path[1:])
	case t.Kind() == reflect.Slice && isTable(indirect(t.Elem())): // an array of tables
		return lookup(t.Elem(), path)
	case !isTable(t):
		return nil, false
	}
	for _, f := range fields(t) {
		if strings.EqualFold(f.name, path[0]) { // as the decoder matches
			return lookup(f.typ, path[1:])
		}
	}
	return nil, false
}

// Keys lists every dotted key of a configuration, tables left out, in the
// struct's order.
func Keys(cfg any) []string {
	var out []string
	walk(indirect(reflect.TypeOf(cfg)), "", func(key string, t reflect.Type) {
		if !isTable(t) {
			out = append(out, key)
		}
	})
	return out
}

func walk(t reflect.Type, prefix string, visit func(key string, t reflect.Type)) {
	if t.Kind() == reflect.Slice {
		t = indirect(t.Elem())
	}
	if !isTable(t) || strings.Count(prefix, ".") > 16 { // a recursive schema
		return
	}
	for _, f := range fields(t) {
		visit(prefix+f.name, f.typ)
		walk(f.typ, prefix+f.name+".", visit)
	}
}

// childKeys lists the keys right inside a table.
func childKeys(schema reflect.Type, path []string) []string {
	t, ok := lookup(schema, path)
	if ok && t.Kind() == reflect.Slice {
		t = indirect(t.Elem())
	}
	if !ok || !isTable(t) {
		return nil
	}
	var out []string
	for _, f := range fields(t) {
		out = append(out, f.name)
	}
	return out
}

// unknownKey says which key is unknown, and which one may have been meant.
func unknownKey(schema reflect.Type, path []string) string {
	key := strings.Join(path, ".")
	if near := nearest(schema, key); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, near)
	}
	for n := len(path) - 1; n >= 0; n-- {
		if keys := childKeys(schema, path[:n]); keys != nil {
			if n == 0 {
				return fmt.Sprintf("unknown key %q; the keys are %s", key, strings.Join(keys, ", "))
			}
			return fmt.Sprintf("unknown key %q; the keys of %s are %s", key, strings.Join(path[:n], "."), strings.Join(keys, ", "))
		}
	}
	return fmt.Sprintf("unknown key %q", key)
}

// nearest is the valid key closest to key: the same last part elsewhere, or few edits.
func nearest(schema reflect.Type, key string) string {
	last := func(k string) string { return k[strings.LastIndexByte(k, '.')+1:] }
	best, cost := "", 1+max(2, len(key)/3)
	walk(schema, "", func(k string, _ reflect.Type) {
		c := edits(strings.ToLower(key), strings.ToLower(k))
		if strings.EqualFold(last(k), last(key)) {
			c = min(c, 2) // the right name in the wrong table
		} else if !strings.Contains(key, ".") {
			c = min(c, 1+edits(strings.ToLower(key), strings.ToLower(last(k))))
		}
		if c < cost {
			best, cost = k, c
		}
	})
	return best
}

// edits is the Levenshtein distance, with a swap of neighbours as one edit.
func edits(a, b string) int {
	before, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(b)]
}

// typeName says in words what a field takes.
func typeName(t reflect.Type) string {
	t = indirect(t)
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "text"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text in quotes"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Int8, reflect.Int16, reflect.Int32:
		return fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<t.Bits()-1)
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list, each " + typeName(t.Elem())
	case reflect.Map, reflect.Struct:
		return "a table"
	}
	return t.String()
}

// tomlValue spells a command-line value in TOML for a field of type t.
func tomlValue(t reflect.Type, value string) (string, error) {
	t = indirect(t)
	if t.Kind() == reflect.String || reflect.PointerTo(t).Implements(textUnmarshaler) {
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			return value, nil
		}
		return tomlString(value), nil
	}
	if strings.ContainsAny(value, "\r\n#") {
		return "", fmt.Errorf("want %s, got %q", typeName(t), value)
	}
	if value == "" {
		return "", fmt.Errorf("want %s, got nothing", typeName(t))
	}
	if (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) && !strings.HasPrefix(value, "[") {
		parts := strings.Split(value, ",")
		for i, p := range parts {
			var err error
			if parts[i], err = tomlValue(t.Elem(), strings.TrimSpace(p)); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	}
	return value, nil
}

func tomlString(s string) string {
	text, _ := toml.Marshal(map[string]string{"k": s})
	_, value, _ := strings.Cut(string(text), "=")
	return strings.TrimSpace(value)
}

// Differences lists the keys whose values differ between two configurations of
// one type, "optimizer.lr: 0.0001 -> 0.0003"; a resumed run shows them.
func Differences(old, new any) []string {
	var out []string
	var compare func(a, b reflect.Value, prefix string)
	compare = func(a, b reflect.Value, prefix string) {
		for a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
			a, b = a.Elem(), b.Elem()
		}
		if a.Kind() == reflect.Struct && isTable(a.Type()) {
			for i := range a.NumField() {
				f := a.Type().Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
				switch {
				case name == "-" || !f.IsExported():
				case f.Anonymous && name == "":
					compare(a.Field(i), b.Field(i), prefix)
				case name == "":
					compare(a.Field(i), b.Field(i), prefix+"."+f.Name)
				default:
					compare(a.Field(i), b.Field(i), prefix+"."+name)
				}
			}
			return
		}
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			out = append(out, fmt.Sprintf("%s: %s -> %s", strings.TrimPrefix(prefix, "."), show(a), show(b)))
		}
	}
	a, b := reflect.ValueOf(old), reflect.ValueOf(new)
	if a.Type() == b.Type() {
		compare(a, b, "")
	}
	return out
}

func show(v reflect.Value) string {
	if v.Kind() == reflect.String {
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}
