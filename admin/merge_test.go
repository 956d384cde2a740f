package admin

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"
)

// told is what a worker of a generation answers as text.
func told(t testing.TB, slot, generation int, text string) answer {
	list, err := parse([]byte(text), expfmt.FmtText)
	require.NoError(t, err)
	return answer{worker: number(slot), slot: slot, generation: generation, families: list}
}

// mergedText is what comes of answers, as text in that format, and what was dropped.
func mergedText(t testing.TB, format expfmt.Format, list ...answer) (string, map[string]int) {
	m := newMerger(format)
	for _, a := range newestFirst(list) {
		m.add(a)
	}
	var b bytes.Buffer
	out := expfmt.NewEncoder(&b, format)
	for _, f := range m.families() {
		require.NoError(t, out.Encode(f.MetricFamily))
	}
	require.NoError(t, out.(expfmt.Closer).Close())
	return b.String(), m.dropped
}

// TestMergeNames: each series has its worker's name; a label worker of its own is
// exported_worker, and exported_exported_worker if that is taken.
func TestMergeNames(t *testing.T) {
	text, dropped := mergedText(t, expfmt.FmtText,
		told(t, 0, 1, "# TYPE jobs_total counter\njobs_total{kind=\"a\",worker=\"x\"} 1\njobs_total{exported_worker=\"b\",worker=\"y\"} 2\n"),
		told(t, 1, 1, "# TYPE jobs_total counter\njobs_total{kind=\"a\",zone=\"z\"} 3\n"))
	require.Empty(t, dropped)
	for _, line := range []string{
		`jobs_total{exported_worker="x",kind="a",worker="0"} 1`,
		`jobs_total{exported_exported_worker="y",exported_worker="b",worker="0"} 2`,
		`jobs_total{kind="a",worker="1",zone="z"} 3`,
	} {
		require.Contains(t, text, line+"\n")
	}
	require.Equal(t, 1, strings.Count(text, "# TYPE jobs_total"))
}

// TestMergeTypes: the newest generation names type and help. Counter, gauge and
// untyped fit each other; what does not fit is dropped and counted, and no error.
func TestMergeTypes(t *testing.T) {
	text, dropped := mergedText(t, expfmt.FmtText,
		told(t, 0, 1, "# HELP a old\n# TYPE a gauge\na 1\n# TYPE b counter\nb 1\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\nc_sum 1\nc_count 1\nd 1\n"),
		told(t, 1, 2, "# HELP a new\n# TYPE a counter\na 2\nb 2\n# TYPE c counter\nc 2\n# TYPE d gauge\nd 2\n"),
		told(t, 2, 1, "# TYPE c summary\nc_sum 1\nc_count 1\n"))
	require.Equal(t, map[string]int{"0": 1, "2": 1}, dropped)
	require.Contains(t, text, "# HELP a new\n# TYPE a counter\na{worker=\"1\"} 2\na{worker=\"0\"} 1\n")
	require.Contains(t, text, "# TYPE b untyped\nb{worker=\"1\"} 2\nb{worker=\"0\"} 1\n")
	require.Contains(t, text, "# TYPE c counter\nc{worker=\"1\"} 2\n")
	require.Contains(t, text, "# TYPE d gauge\nd{worker=\"1\"} 2\nd{worker=\"0\"} 1\n")
	require.NotContains(t, text, "c_sum")
}

// TestMergeSampleNames: no two families have samples of one name, which a scraper of
// OpenMetrics would refuse with all the rest.
func TestMergeSampleNames(t *testing.T) {
	for _, format := range []expfmt.Format{expfmt.FmtText, expfmt.FmtOpenMetrics_1_0_0} {
		text, dropped := mergedText(t, format,
			told(t, 0, 2, "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"),
			told(t, 1, 1, "# TYPE h_count counter\nh_count 7\n"))
		require.Equal(t, map[string]int{"1": 1}, dropped, text)
		require.NotContains(t, text, " 7", "%s", format)
	}
}

// TestMergeHostile: what would spoil the whole answer, or a terminal that shows it, is
// dropped or escaped; and no worker has a series that looks like the cluster's.
func TestMergeHostile(t *testing.T) {
	p := func(s string) *string { return &s }
	one, kind := 1.0, dto.MetricType_COUNTER
	with := func(name string, labels ...string) *dto.MetricFamily {
		m := &dto.Metric{Counter: &dto.Counter{Value: &one}}
		for i := 0; i < len(labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
		}
		return &dto.MetricFamily{Name: &name, Type: &kind, Help: p("a\x1b[2J\nb"), Metric: []*dto.Metric{m}}
	}
	summary, histogram := dto.MetricType_SUMMARY, dto.MetricType_HISTOGRAM
	for name, f := range map[string]*dto.MetricFamily{
		"no name":      with(""),
		"a newline":    with("a\nb"),
		"an escape":    with("a\x1b"),
		"no UTF-8":     with("a\xff"),
		"label twice":  with("a", "x", "1", "x", "2"),
		"label name":   with("a", "x\n", "1"),
		"its name":     with("a", "__name__", "b"),
		"other value":  {Name: p("a"), Type: &histogram, Metric: with("a").Metric},
		"no series":    {Name: p("a"), Type: &kind, Metric: []*dto.Metric{nil}},
		"two quantile": {Name: p("a"), Type: &summary, Metric: []*dto.Metric{{Summary: new(dto.Summary), Label: []*dto.LabelPair{{Name: p("quantile"), Value: p("1")}}}}},
	} {
		for _, format := range []expfmt.Format{expfmt.FmtText, expfmt.FmtText_1_0_0.WithEscapingScheme(model.NoEscaping)} {
			text, dropped := mergedText(t, format, answer{worker: "0", families: []*dto.MetricFamily{f}})
			require.Equal(t, map[string]int{"0": 1}, dropped, "%s: %s", name, text)
			require.Empty(t, text)
		}
	}
	text, dropped := mergedText(t, expfmt.FmtText, answer{worker: "0", families: []*dto.MetricFamily{
		with("good_total", "x", "\x1b[2J\n\u009b\xff\""), with("cluster_workers"), with("cluster.workers"),
	}})
	require.Empty(t, dropped)
	require.Equal(t, "# HELP good_total a\\\\x1b[2J\\\\nb\n# TYPE good_total counter\n"+
		"good_total{worker=\"0\",x=\"\\\\x1b[2J\\\\n\\\\u009b\\\\xff\\\"\"} 1\n", text)
}

// TestMergeFormats: an answer in each format says the same, and a histogram, a summary
// and a counter without _total come through.
func TestMergeFormats(t *testing.T) {
	a := told(t, 0, 1, "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n"+
		"# TYPE s summary\ns{quantile=\"0.5\"} 4\ns_sum 5\ns_count 6\n# TYPE jobs counter\njobs 7\n")
	var b bytes.Buffer
	for _, f := range a.families {
		_, err := protodelim.MarshalTo(&b, f)
		require.NoError(t, err)
	}
	for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1", acceptMetrics} {
		format := expfmt.NegotiateAccept(http.Header{"Accept": {accept}}, formats...)
		again, err := parse(b.Bytes(), expfmt.FmtProtoDelim)
		require.NoError(t, err)
		text, _ := mergedText(t, format, answer{worker: "0", families: again})
		if format.FormatType() == expfmt.TypeOpenMetrics {
			require.Contains(t, text, "# TYPE jobs unknown\njobs{worker=\"0\"} 7.0\n")
			require.Contains(t, text, "h_count{worker=\"0\"} 2\n")
			require.True(t, strings.HasSuffix(text, "# EOF\n"), text)
			continue
		}
		list, err := parse([]byte(text), format)
		require.NoError(t, err)
		read := make(map[string]*dto.Metric)
		for _, f := range list {
			read[f.GetName()] = f.Metric[0]
		}
		require.Equal(t, 7.0, read["jobs"].Counter.GetValue())
		require.EqualValues(t, 2, read["h"].Histogram.GetSampleCount(), "%s: %s", format, text)
		require.Equal(t, 4.0, read["s"].Summary.Quantile[0].GetValue())
		require.Equal(t, "worker", read["s"].Label[0].GetName())
	}
	_, err := parse(b.Bytes()[:b.Len()-1], expfmt.FmtProtoDelim)
	require.Error(t, err)
	_, err = parse([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), expfmt.FmtProtoDelim)
	require.Error(t, err) // a length beyond all bounds
	_, err = parse(nil, expfmt.FmtUnknown)
	require.Error(t, err)
}

// FuzzMerge: whatever a worker answers as protobuf, the text can be read again.
func FuzzMerge(f *testing.F) {
	var b bytes.Buffer
	for _, family := range told(f, 0, 1, "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\nu{a=\"b\"} 1\n").families {
		protodelim.MarshalTo(&b, family)
	}
	f.Add(b.Bytes())
	f.Add([]byte("\x05\x0a\x01a\x18\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parse(b, expfmt.FmtProtoDelim)
		if err != nil {
			return
		}
		m := newMerger(expfmt.FmtText)
		m.add(answer{worker: "0", families: list})
		var text bytes.Buffer
		out := expfmt.NewEncoder(&text, expfmt.FmtText)
		for _, family := range m.families() {
			if mark := text.Len(); out.Encode(family.MetricFamily) != nil {
				text.Truncate(mark)
			}
		}
		require.NotContains(t, text.String(), "\x1b")
		_, err = parse(text.Bytes(), expfmt.FmtText)
		require.NoError(t, err, "%s", text.String())
	})
}

// answerOf500 is what a worker with 500 series answers.
func answerOf500(t testing.TB) []byte {
	var text strings.Builder
	for i := range 10 {
		text.WriteString("# HELP jobs_" + number(i) + "_total Jobs.\n# TYPE jobs_" + number(i) + "_total counter\n")
		for j := range 50 {
			text.WriteString("jobs_" + number(i) + "_total{kind=\"" + number(j) + "\",path=\"/a/b\",status=\"200\"} 12345\n")
		}
	}
	var body bytes.Buffer
	for _, f := range told(t, 0, 1, text.String()).families {
		protodelim.MarshalTo(&body, f)
	}
	return body.Bytes()
}

// BenchmarkMerge is what a scrape of 8 workers with 500 series each costs the master,
// beside the reading of what they answer.
func BenchmarkMerge(b *testing.B) {
	body := answerOf500(b)
	for b.Loop() {
		scrapeOf8(b, body)
	}
}

// scrapeOf8 is a scrape, but for the asking of the workers.
func scrapeOf8(t testing.TB, body []byte) {
	m := newMerger(expfmt.FmtText)
	for slot := range 8 {
		families, err := parse(body, expfmt.FmtProtoDelim)
		require.NoError(t, err)
		m.add(answer{worker: number(slot), slot: slot, families: families})
	}
	var out bytes.Buffer
	e := expfmt.NewEncoder(&out, expfmt.FmtText)
	for _, f := range m.families() {
		require.NoError(t, e.Encode(f.MetricFamily))
	}
	require.Equal(t, 8*500+2*10, bytes.Count(out.Bytes(), []byte("\n")))
}
