package fleet

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzToken: every text has a token of its own, which NATS takes as one.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "=", "a.b", "*", ">", "ä b", "\x00", "web-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok := token(s)
		require.NotEmpty(t, tok)
		require.False(t, strings.ContainsFunc(tok, func(r rune) bool { return r != '=' && !plain(byte(r)) }), tok)
		back, ok := untoken(tok)
		require.True(t, ok)
		require.Equal(t, s, back)
		if again, ok := untoken(s); ok { // s is a token itself: then it is the one of that text
			require.Equal(t, again, func() string { x, _ := untoken(token(again)); return x }())
		}
	})
}

// TestTopics: what is a topic, for whom.
func TestTopics(t *testing.T) {
	for topic, want := range map[string]string{
		"a": "both", "a.b.c": "both", "ä": "both", "a*": "both", "a.*": "heard", "*": "heard", "a.>": "heard", ">": "heard",
		"": "none", ".a": "none", "a.": "none", "a..b": "none", "a b": "none", "a\nb": "none", "a.>.b": "none", strings.Repeat("x", 1025): "none",
	} {
		require.Equal(t, want == "both", checkTopic(topic, false) == nil, topic)
		require.Equal(t, want != "none", checkTopic(topic, true) == nil, topic)
	}
}

// TestFleetName: a name is part of subjects as it is.
func TestFleetName(t *testing.T) {
	for _, name := range []string{"a.b", "a b", "ä", strings.Repeat("x", 65), "*"} {
		_, err := join(Options{Name: name}, quick)
		require.ErrorContains(t, err, "Options.Name")
	}
	require.NoError(t, checkFleetName(programName()))
	_, err := join(Options{Name: "a", Node: strings.Repeat("x", 257)}, quick)
	require.ErrorContains(t, err, "Options.Node")
}
