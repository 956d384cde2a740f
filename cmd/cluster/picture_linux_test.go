package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// A screen as a picture for the documents.

// The size of a character, and the colours, of which a screen here has few.
const (
	charWidth, charHeight = 8.4, 18
	ground, ink           = "#1b1f24", "#d7dde4"
)

// style is how a run of characters looks.
type style struct{ bold, dim, reverse, red bool }

// sgr makes the style what the numbers of an escape sequence say.
func (s *style) sgr(numbers string) {
	for number := range strings.SplitSeq(numbers, ";") {
		switch number {
		case "", "0":
			*s = style{}
		case "1":
			s.bold = true
		case "2":
			s.dim = true
		case "7":
			s.reverse = true
		case "91":
			s.red = true
		case "39":
			s.red = false
		case "22":
			s.bold, s.dim = false, false
		case "27":
			s.reverse = false
		}
	}
}

// svg draws n characters of that style.
func (s style) svg(b *strings.Builder, text string, column, line int) {
	x, y, wide := float64(column+1)*charWidth, line*charHeight, float64(utf8.RuneCountInString(text))*charWidth
	fill, more := ink, ""
	if s.red {
		fill = "#ff7b72"
	}
	if s.reverse {
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, x, y+10, wide, charHeight, fill)
		fill = ground
	}
	if s.bold {
		more = ` font-weight="bold"`
	}
	if s.dim {
		more += ` opacity="0.65"`
	}
	var escaped strings.Builder
	xml.EscapeText(&escaped, []byte(strings.ReplaceAll(text, " ", "\u00a0"))) // or a viewer makes one of several
	fmt.Fprintf(b, `<text x="%.1f" y="%d" textLength="%.1f" fill="%s"%s>%s</text>`+"\n", x, y+24, wide, fill, more, escaped.String())
}

// empty are lines of which a picture needs only two.
var empty = regexp.MustCompile("\n{4,}")

// picture is a screen, with the escape sequences of its colours, as SVG.
func picture(screen string) string {
	lines := strings.Split(empty.ReplaceAllString(strings.TrimRight(screen, "\n"), "\n\n\n"), "\n")
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">`+"\n",
		(width+2)*charWidth, len(lines)*charHeight+20)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="6" fill="%s"/>`+"\n", ground)
	var now style
	for i, line := range lines {
		column := 0
		for j, text := range strings.Split(line, "\x1b[") {
			if j > 0 { // else it goes on as the line before has ended
				var numbers string
				numbers, text, _ = strings.Cut(text, "m")
				now.sgr(numbers)
			}
			if strings.TrimSpace(text) != "" || now.reverse && text != "" {
				now.svg(&b, text, column, i)
			}
			column += utf8.RuneCountInString(text)
		}
	}
	return b.String() + "</svg>\n"
}

// keepPicture writes a screen to $SCREENSHOTS/NAME.svg, if there is such a directory, as that
// of a cluster called web.
func (s *screen) keepPicture(name string) {
	t := s.c.t
	text := picture(strings.ReplaceAll(s.tmux("capture-pane", "-e", "-p"), s.c.name, "web"))
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else {
			require.NoError(t, err, text)
		}
	}
	require.Contains(t, text, "WORKER")
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".svg"), []byte(text), 0o644))
	}
}

// TestPicture: a line's runs of one style are each where they are on the screen.
func TestPicture(t *testing.T) {
	text := picture("\x1b[1ma <b>\x1b[0m c\n\n\x1b[7m x \x1b[0m\n\n")
	require.Contains(t, text, ` font-weight="bold">a`+"\u00a0&lt;b&gt;</text>")
	require.Contains(t, text, `<text x="50.4" y="24" textLength="16.8" fill="#d7dde4">`+"\u00a0c</text>")
	require.Contains(t, text, `<rect x="8.4" y="46" width="25.2"`)
	require.Contains(t, text, `height="74"`)
}
