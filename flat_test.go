package cluster

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// level is a string with a name, and shout one that reads itself.
type level string

type shout string

func (s *shout) UnmarshalText(b []byte) error { *s = shout(b) + "!"; return nil }

// flatTypes are decoded in all ways.
var flatTypes = []struct {
	flat bool
	new  func() any
}{
	{true, func() any { return new(struct{}) }},
	{true, func() any {
		return &struct {
			Cmd string `json:"cmd"`
			N   int    `json:"n"`
		}{"before", 7}
	}},
	{true, func() any {
		return &struct {
			S     string
			L     level `json:"l,omitempty"`
			B     bool  `json:"b"`
			I     int8
			U     uint16 `json:"u"`
			F     float32
			D     float64 `json:"d_1"`
			T     time.Duration
			Skip  chan int `json:"-"`
			inner []byte
		}{S: "before", inner: []byte{1}}
	}},
	{false, func() any { return new(struct{ A, a2, B *int }) }},
	{false, func() any { return new(struct{ S shout }) }},
	{false, func() any { return new(struct{ N json.Number }) }},
	{false, func() any {
		return new(struct {
			N int `json:"n,string"`
		})
	}},
	{false, func() any {
		return new(struct {
			A int `json:"a"`
			B int `json:"A"`
		})
	}},
	{false, func() any { return new(struct{ level }) }},
	{false, func() any { return new(struct{ T time.Time }) }},
	{false, func() any {
		return new(struct {
			N int `json:"n!"`
		})
	}},
	{false, func() any { return new(map[string]int) }},
	{false, func() any { return new(any) }},
}

// TestFlat: which types are decoded without encoding/json.
func TestFlat(t *testing.T) {
	for _, c := range flatTypes {
		typ := reflect.TypeOf(c.new()).Elem()
		require.Equal(t, c.flat, flatOf(typ) != nil, "%v", typ)
	}
	require.Error(t, decode([]byte(`{}`), nil))
	require.Error(t, decode([]byte(`{}`), struct{ N int }{}))
	require.Error(t, decode([]byte(`{}`), (*struct{ N int })(nil)))
	require.Error(t, decode(nil, new(struct{ N int })))
}

// FuzzDecode: decode does what json.Unmarshal does, errors and what is stored in
// spite of them included.
func FuzzDecode(f *testing.F) {
	for _, s := range append(jsonSeeds,
		`{"cmd":"count","n":1000000000}`, `{"cmd":null,"n":null}`, `{"CMD":"x","N":1}`, `{"cmd":1,"n":"x"}`, `{"n":1.5,"cmd":"later"}`,
		`{"n":1e3}`, `{"n":-0}`, `{"n":99999999999999999999}`, `{"n":1,"n":2}`, `{"x":{"n":[1]},"n":3}`, `{"cm\u0064":"a\u00e9\ud800"}`,
		`{"S":"s","l":"l","b":true,"I":-128,"u":65535,"F":1.5,"d_1":-1e-3,"T":1}`, `{"I":128,"u":-1,"F":1e39,"d_1":1e400}`, `{"b":"true"}`,
		"{\"S\":\"\xff\",\"\xff\":1}", `{"ſ":"kelvin"}`, ` {"n" : 1 } `, `[1]`, `null`, `"x"`,
	) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		for _, c := range flatTypes {
			want, got := c.new(), c.new()
			wantErr := json.Unmarshal(raw, want)
			err := decode(raw, got)
			require.Equal(t, wantErr, err, "%T", got)
			require.Equal(t, want, got)
		}
	})
}
