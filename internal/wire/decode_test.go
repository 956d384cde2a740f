package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// decodeTargets are types that a message may be decoded into.
var decodeTargets = []any{
	*new(any), 0, int8(0), uint(0), 0.0, "", false, []int(nil), []any(nil), [2]int{}, []byte(nil), map[string]int(nil), map[int]any(nil),
	json.RawMessage(nil), json.Number(""), time.Time{}, time.Duration(0), refusing{}, appending{},
	struct {
		Cmd string `json:"cmd"`
		N   int    `json:"n"`
	}{},
	struct {
		A  *int            `json:"a,string"`
		N  struct{ B any } `json:"n"`
		C  refusing
		D  []appending
		E  map[string]*float64
		F  any `json:",omitempty"`
		cm string
	}{},
	struct { // two members whose names differ in their case only
		C string
		D string `json:"c"`
	}{},
}

// refusing refuses all but null.
type refusing struct{ Seen int }

func (r *refusing) UnmarshalJSON(text []byte) error {
	r.Seen = len(text)
	return errors.New("refused")
}

// appending takes anything.
type appending struct{ Text string }

func (a *appending) UnmarshalText(text []byte) error {
	a.Text = string(text)
	return nil
}

var decodeSeeds = []string{
	`{"cmd":"count","n":1000000000}`, `{"cmd":1,"n":2}`, `{"cmd":"a","n":"b"}`, `{"cmd":"a","cmd":"b","N":3,"n":4}`, `{"n":{"B":[1,{"C":2}]},"a":"7","C":1,"x":1}`,
	`{"n":{"B":1e400},"a":7,"D":[1,"t",{}],"E":{"k":null,"l":2,"m":"x"},"F":{}}`, `{"x":1,"c":"low","C":"high"}`, `{"c":1,"C":"high"}`,
	`[1,2,3]`, `[1,"2",3]`, `{"1":2,"a":3}`, `{"a":1,"b":"2","c":3}`, `300`, `-1`, `1.5`, `1e400`, `"2026-11-29T11:00:00Z"`, `"x"`, `"AQI="`, `null`, `true`,
	"\"\xff\\ud800\"", ` {"n" : 1 } `, `{"":1}`, `{"a":null,"n":null,"C":null}`, `12345678901234567890123`,
}

// TestDecode: what is stored, and the error, are those of json.Unmarshal.
func TestDecode(t *testing.T) {
	for _, raw := range decodeSeeds {
		require.True(t, valid([]byte(raw)), raw)
		requireDecodesAs(t, []byte(raw))
	}
	for _, into := range []any{nil, 1, (*int)(nil)} {
		require.EqualError(t, Decode([]byte(`1`), into), json.Unmarshal([]byte(`1`), into).Error())
	}
	require.EqualError(t, Decode(nil, new(int)), json.Unmarshal(nil, new(int)).Error())
	deep := []byte(strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth))
	var v any
	require.NoError(t, Decode(deep, &v))
}

func requireDecodesAs(t *testing.T, raw []byte) {
	for _, target := range decodeTargets {
		typ := reflect.TypeOf(&target).Elem()
		if target != nil {
			typ = reflect.TypeOf(target)
		}
		got, want := reflect.New(typ), reflect.New(typ)
		err, wanted := Decode(raw, got.Interface()), json.Unmarshal(raw, want.Interface())
		require.Equal(t, wanted, err, "%s into %v", raw, typ)
		require.Equal(t, want.Interface(), got.Interface(), "%s into %v", raw, typ)
	}
}

// FuzzDecode is TestDecode for any valid text.
func FuzzDecode(f *testing.F) {
	for _, raw := range decodeSeeds {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if valid(raw) {
			requireDecodesAs(t, raw)
		}
	})
}

// BenchmarkDecode is a message of an application, and what json.Unmarshal takes for it.
func BenchmarkDecode(b *testing.B) {
	raw := []byte(`{"cmd":"job","id":123456,"name":"resize","width":640,"height":480,"url":"https://example.org/a/b/c.png"}`)
	for name, decode := range map[string]func([]byte, any) error{"Decode": Decode, "encoding-json": json.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var v struct {
					Cmd, Name, URL    string
					ID, Width, Height int
				}
				if err := decode(raw, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
