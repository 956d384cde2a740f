package cluster

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// flat is how to decode an object into a struct that has nothing but strings,
// booleans and numbers, as most messages are: a third of the time that
// encoding/json takes, which all else is left to. The outcome is the same.
type flat []flatField

type flatField struct {
	name  string
	index int
	kind  reflect.Kind
}

// flats are the known types' flat; nil for one that is not.
var flats sync.Map

func flatOf(t reflect.Type) flat {
	if f, ok := flats.Load(t); ok {
		return f.(flat)
	}
	f := newFlat(t)
	flats.Store(t, f)
	return f
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// newFlat returns nil for a type with anything in it of which encoding/json has
// rules of its own.
func newFlat(t reflect.Type) (f flat) {
	if t.Kind() != reflect.Struct || decodesItself(t) {
		return nil
	}
	f = flat{}
	for i := range t.NumField() {
		field := t.Field(i)
		tag := field.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if !field.Anonymous && !field.IsExported() || tag == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if field.Anonymous || !isFlat(field.Type) || !isWord(name) || strings.Contains(options, "string") || f.folds([]byte(name)) {
			return nil
		}
		f = append(f, flatField{name, i, field.Type.Kind()})
	}
	return f
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshaler) || p.Implements(textUnmarshaler)
}

func isFlat(t reflect.Type) bool {
	if decodesItself(t) || t == reflect.TypeFor[json.Number]() {
		return false
	}
	k := t.Kind()
	return k == reflect.String || k == reflect.Bool || reflect.Int <= k && k <= reflect.Uint64 || k == reflect.Float32 || k == reflect.Float64
}

// isWord tells the names that encoding/json takes as they are.
func isWord(name string) bool {
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// decode stores raw, a valid JSON value, in v, or returns false: then
// encoding/json is to decode it, and stores what was stored already once more.
func (f flat) decode(raw []byte, v reflect.Value) bool {
	if len(raw) == 0 || raw[0] != '{' {
		return false
	}
	for name, value := range members(raw) {
		if i := f.find(name); i >= 0 {
			if !store(value, f[i].kind, v.Field(f[i].index)) {
				return false
			}
		} else if f.folds(name) {
			return false
		}
	}
	return true
}

func (f flat) find(name []byte) int {
	for i := range f {
		if f[i].name == string(name) {
			return i
		}
	}
	return -1
}

// folds reports whether name is a field's but for upper and lower case.
func (f flat) folds(name []byte) bool {
	for i := range f {
		if strings.EqualFold(f[i].name, string(name)) {
			return true
		}
	}
	return false
}

func store(value []byte, k reflect.Kind, to reflect.Value) bool {
	switch {
	case value[0] == 'n': // null changes nothing
		return true
	case value[0] == '"':
		if k != reflect.String {
			return false
		}
		to.SetString(unquote(value))
		return true
	case value[0] == 't' || value[0] == 'f':
		if k != reflect.Bool {
			return false
		}
		to.SetBool(value[0] == 't')
		return true
	}
	switch text := string(value); {
	case to.CanInt():
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || to.OverflowInt(n) {
			return false
		}
		to.SetInt(n)
	case to.CanUint():
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || to.OverflowUint(n) {
			return false
		}
		to.SetUint(n)
	case to.CanFloat():
		n, err := strconv.ParseFloat(text, to.Type().Bits())
		if err != nil {
			return false
		}
		to.SetFloat(n)
	default:
		return false
	}
	return true
}
