package text

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/ir"
)

// attributes reads {key=value, ...}, if there, into a copy of the prototype:
// the inverse of ir.AttrString.
func (p *parser) attributes(proto ir.Op) ir.Op {
	pointer := reflect.TypeOf(proto).Kind() == reflect.Pointer
	from := reflect.ValueOf(proto)
	if pointer {
		from = from.Elem()
	}
	op := reflect.New(from.Type())
	op.Elem().Set(from)
	if p.take("{") {
		fields := map[string]reflect.Value{}
		var keys []string
		for i := 0; i < from.NumField(); i++ {
			if f := from.Type().Field(i); f.IsExported() && !f.Anonymous {
				key := ir.AttrKey(f.Name)
				fields[key] = op.Elem().Field(i)
				keys = append(keys, key)
			}
		}
		for first := true; !p.take("}"); first = false {
			if !first {
				p.want(",")
			}
			p.skip()
			at := p.at
			key := p.name("an attribute")
			f, ok := fields[key]
			if !ok {
				p.fail(at, "%s has no attribute %q, expected one of: %s", proto.Name(), key, strings.Join(keys, " "))
			}
			p.want("=")
			p.skip()
			at = p.at
			if err := setAttr(f, p.rawValue()); err != nil {
				p.fail(at, "attribute %s of %s: %v", key, proto.Name(), err)
			}
		}
	}
	if pointer {
		return op.Interface().(ir.Op)
	}
	return op.Elem().Interface().(ir.Op)
}

// rawValue is the text up to the comma or brace that ends an attribute.
func (p *parser) rawValue() string {
	start, depth := p.at, 0
	for p.at < len(p.src) {
		switch c := p.src[p.at]; {
		case c == '"':
			p.quoted()
			continue
		case c == '\n':
			p.expected("the end of an attribute: , or }")
		case c == '[' || c == '(':
			depth++
		case c == ']' || c == ')':
			depth--
		case depth <= 0 && (c == ',' || c == '}'):
			return strings.TrimSpace(p.src[start:p.at])
		}
		p.at++
	}
	p.expected("the end of an attribute: , or }")
	return ""
}

func setAttr(v reflect.Value, s string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	if d, ok := v.Addr().Interface().(*ir.DType); ok {
		x, err := ir.ParseDType(s)
		*d = x
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		x, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("found %q, expected true or false", s)
		}
		v.SetBool(x)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("found %q, expected an integer", s)
		}
		v.SetInt(x)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("found %q, expected an integer of 0 or more", s)
		}
		v.SetUint(x)
	case reflect.Float32, reflect.Float64:
		x, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("found %q, expected a number", s)
		}
		v.SetFloat(x)
	case reflect.String:
		x, err := strconv.Unquote(s)
		if err != nil {
			return fmt.Errorf("found %s, expected a quoted string", s)
		}
		v.SetString(x)
	case reflect.Slice:
		if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
			return fmt.Errorf("found %q, expected a list such as [1,2]", s)
		}
		parts := split(s[1 : len(s)-1])
		out := reflect.MakeSlice(v.Type(), len(parts), len(parts))
		for i, e := range parts {
			if err := setAttr(out.Index(i), e); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		v.Set(out)
	default:
		return fmt.Errorf("internal: attributes of type %s have no text form; give the type String and UnmarshalText", v.Type())
	}
	return nil
}

// split cuts a list at its commas outside brackets and quotes.
func split(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	var out []string
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '(':
			depth++
		case c == ']' || c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[start:]))
}
