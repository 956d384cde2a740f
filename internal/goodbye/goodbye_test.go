package goodbye

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// told is what a client gets: p with the header in its place.
func told(p string) string {
	at, _ := Locate([]byte(p))
	if at < 0 {
		return p
	}
	return p[:at] + Header + p[at:]
}

// TestLocate: the header stands behind the status line of an answer, and nowhere in
// anything else.
func TestLocate(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	const rest = "Content-Length: 2\r\n\r\nhi"
	for name, test := range map[string]struct {
		write, want string
		what        Kind
	}{
		"an answer":              {ok + rest, ok + Header + rest, Final},
		"without a reason":       {"HTTP/1.1 204\r\n\r\n", "HTTP/1.1 204\r\n" + Header + "\r\n", Final},
		"bare newlines":          {"HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 200 OK\n" + Header + "A: b\n\n", Final},
		"a long header":          {ok + "A: b", ok + Header + "A: b", Final},
		"it says close":          {ok + "Connection: close\r\n" + rest, ok + "Connection: close\r\n" + rest, Final},
		"it says keep-alive":     {ok + "conNection: keep-alive\r\n\r\n", ok + "conNection: keep-alive\r\n\r\n", Final},
		"a name that is longer":  {ok + "Connections: 3\r\n\r\n", ok + Header + "Connections: 3\r\n\r\n", Final},
		"the word in the body":   {ok + "\r\nConnection: x\r\n", ok + Header + "\r\nConnection: x\r\n", Final},
		"HTTP/1.0":               {"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", Other},
		"half a status line":     {"HTTP/1.1 200 O", "HTTP/1.1 200 O", Other},
		"no status":              {"HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", Other},
		"four digits":            {"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", Other},
		"TLS":                    {"\x17\x03\x03", "\x17\x03\x03", Other},
		"nothing":                {"", "", Other},
		"continue":               {"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", Interim},
		"hints in part":          {"HTTP/1.1 103 Early Hints\r\nLink: a", "HTTP/1.1 103 Early Hints\r\nLink: a", Interim},
		"continue, and more":     {"HTTP/1.1 100 Continue\r\n\r\n" + ok + rest, "HTTP/1.1 100 Continue\r\n\r\n" + ok + Header + rest, Final},
		"hints that say it":      {"HTTP/1.1 103 X\r\nConnection: a\r\n\r\n" + ok + rest, "HTTP/1.1 103 X\r\nConnection: a\r\n\r\n" + ok + Header + rest, Final},
		"another protocol":       {"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Switch},
		"two answers in a write": {ok + rest + ok + rest, ok + Header + rest + ok + rest, Final},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, told(test.write))
			_, what := Locate([]byte(test.write))
			require.Equal(t, test.what, what)
		})
	}
}

// TestConn: each answer gets it once, what is no beginning of an answer never.
func TestConn(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\n\r\n"
	var c Conn
	write := func(p string) int { return c.Write([]byte(p)) }
	require.Equal(t, -1, write(answer), "nothing was asked")
	require.False(t, c.Speaks())
	for range 2 {
		c.Read([]byte("GET / HTTP/1.1\r\n"))
		require.True(t, c.Pending())
		require.Equal(t, -1, write("HTTP/1.1 100 Continue\r\n\r\n"))
		require.True(t, c.Pending(), "the answer is still to come")
		require.Equal(t, 17, write(answer))
		require.False(t, c.Pending())
		require.True(t, c.Speaks())
		require.Equal(t, -1, write(answer), "this is a body")
	}
	c.Read([]byte("GET / HTTP/1.1\r\n"))
	require.Equal(t, -1, write("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	require.False(t, c.Speaks())
	c.Read([]byte("anything"))
	require.Equal(t, -1, write(answer), "another protocol")

	var tunnel Conn
	tunnel.Read([]byte("CONNECT example.com:80 HTTP/1.1\r\n"))
	require.Equal(t, -1, tunnel.Write([]byte(answer)))
	tunnel.Read([]byte("GET / HTTP/1.1\r\n"))
	require.Equal(t, -1, tunnel.Write([]byte(answer)), "somebody else's answer")
	require.False(t, tunnel.Speaks())

	var file Conn
	file.Read([]byte("GET / HTTP/1.1\r\n"))
	file.Wrote()
	require.Equal(t, -1, file.Write([]byte(answer)))
}

// FuzzLocate: whatever net/http reads as an answer it still reads as the same one, and
// then knows that the connection ends. Nothing is lost and nothing else added.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 ", "\x16\x03\x01", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		at, what := Locate(p)
		if at < 0 {
			return
		}
		require.Equal(t, Final, what)
		require.Equal(t, byte('\n'), p[at-1])
		before, err := readFinal(p)
		if err != nil {
			return
		}
		after, err := readFinal([]byte(told(string(p))))
		require.NoError(t, err)
		require.Equal(t, before.status, after.status)
		require.True(t, after.close)
		require.Equal(t, before.header, after.header)
		require.Equal(t, before.body, after.body)
	})
}

// answer is one as a client reads it.
type answer struct {
	status string
	header http.Header // less Connection
	close  bool
	body   string // as far as it is there
}

// readFinal reads the first answer that is no 1xx.
func readFinal(p []byte) (a answer, err error) {
	r := bufio.NewReader(bytes.NewReader(p))
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return a, err
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Header.Del("Connection")
		return answer{resp.Status, resp.Header, resp.Close, string(body)}, nil
	}
}
