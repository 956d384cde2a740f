package cluster

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var jsonSeeds = []string{
	``, ` `, `null`, `true`, `false`, `nul`, `truex`, `0`, `-0`, `00`, `-`, `1.`, `1.5`, `.5`, `1e`, `1e+`, `1E-9`, `1e700`, `12e3 `, `"`, `""`,
	`"a\n\u00e9\/"`, `"\u12g4"`, `"\u123`, `"\x"`, "\"\x01\"", "\"\xff\"", `[]`, `[ ]`, `[1,]`, `[1 2]`, `[1,[2,{"a":[]}]]`, `[`, `]`, `{}`, `{ "a" : 1 , "b" : [ ] }`,
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `{"a":1`, `{"a":1}}`, "\x00", "1\x00", "\r\n\t 1\r\n\t ", "\f1", `{"cmd":"count","n":1000000000}`,
}

// FuzzValid holds valid against json.Valid, and what decode makes of a valid
// text against json.Unmarshal.
func FuzzValid(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := json.Valid(b)
		if got := valid(b); got != want {
			t.Fatalf("valid(%q) is %v", b, got)
		}
		if !want {
			return
		}
		var got, expected any
		wantErr := json.Unmarshal(b, &expected) // 1e999 is valid and no float64
		require.Equal(t, wantErr, decode(b, &got))
		require.Equal(t, expected, got)
	})
}

// TestDepthOfMessages: values are valid as deep as encoding/json decodes them,
// and no deeper.
func TestDepthOfMessages(t *testing.T) {
	for _, brackets := range []string{"[]", `{"a":}`} {
		for _, depth := range []int{maxDepth, maxDepth + 1} {
			opening, closing := brackets[:len(brackets)-1], brackets[len(brackets)-1:]
			inner := map[string]string{"[": "", `{"a":`: "1"}[opening]
			b := []byte(strings.Repeat(opening, depth) + inner + strings.Repeat(closing, depth))
			require.Equal(t, json.Valid(b), valid(b), depth)
			require.Equal(t, depth == maxDepth, valid(b))
		}
	}
}

// TestDecodeAfterError: an error is json.Unmarshal's, and leaves nothing behind
// for the next message.
func TestDecodeAfterError(t *testing.T) {
	type item struct{ N int }
	for range 10 {
		for _, raw := range []string{``, `{"n":"text"}`, `[1,2]`, `{"n":1e99}`} {
			var got, expected item
			want := json.Unmarshal([]byte(raw), &expected)
			err := decode([]byte(raw), &got)
			require.Equal(t, reflect.TypeOf(want), reflect.TypeOf(err))
			require.EqualError(t, err, want.Error())
			require.Equal(t, expected, got)

			require.NoError(t, decode([]byte(`{"n":7} `), &got))
			require.Equal(t, item{7}, got)
		}
	}
}
