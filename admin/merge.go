package admin

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// own is the prefix of the cluster's own metrics, which no worker can have.
const own = "cluster_"

// merged is a family of several workers.
type merged struct {
	*dto.MetricFamily
	worker string // whose type and help it has
}

// merger puts the families of workers together, each series with the worker's name.
// The first worker that has a family gives it type and help.
type merger struct {
	escaping model.EscapingScheme
	all      map[string]*merged
	samples  map[string]*merged // by the names of their samples: x_sum belongs to x, or is a family
	dropped  map[string]int     // families, by worker
}

func newMerger(format expfmt.Format) *merger {
	return &merger{escaping: format.ToEscapingScheme(), all: make(map[string]*merged), samples: make(map[string]*merged), dropped: make(map[string]int)}
}

// newestFirst are the answers in the order in which they are added.
func newestFirst(list []answer) []answer {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b answer) int {
		return cmp.Or(cmp.Compare(b.generation, a.generation), cmp.Compare(a.slot, b.slot))
	})
	return list
}

// add adds what a worker has answered. What does not fit is dropped and counted.
func (m *merger) add(a answer) {
	for _, f := range a.families {
		ok := valid(f)
		if ok {
			f = model.EscapeMetricFamily(f, m.escaping)
			ok = strings.HasPrefix(f.GetName(), own) || m.addFamily(f, a.worker)
		}
		if !ok {
			m.dropped[a.worker]++
		}
	}
}

func (m *merger) addFamily(f *dto.MetricFamily, worker string) bool {
	if !label(f, worker) {
		return false
	}
	lead := m.all[f.GetName()]
	if lead == nil {
		names := sampleNames(f)
		if slices.ContainsFunc(names, func(name string) bool { return m.samples[name] != nil }) {
			return false
		}
		lead = &merged{MetricFamily: f, worker: worker}
		if f.Help != nil {
			help := printable(f.GetHelp())
			f.Help = &help
		}
		for _, name := range names {
			m.samples[name] = lead
		}
		m.all[f.GetName()] = lead
		return true
	}
	from, to := f.GetType(), lead.GetType()
	if from != to && !(simple(from) && simple(to)) {
		return false
	}
	if from != to {
		for _, s := range f.Metric {
			setValue(s, to, valueOf(s))
		}
	}
	lead.Metric = append(lead.Metric, f.Metric...)
	return true
}

// families are all, by name.
func (m *merger) families() []*merged {
	return slices.SortedFunc(maps.Values(m.all), func(a, b *merged) int { return cmp.Compare(a.GetName(), b.GetName()) })
}

// sampleNames are the names of the samples that f makes as text.
func sampleNames(f *dto.MetricFamily) []string {
	name := f.GetName()
	switch f.GetType() {
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		return []string{name, name + "_bucket", name + "_sum", name + "_count"}
	case dto.MetricType_SUMMARY:
		return []string{name, name + "_sum", name + "_count"}
	}
	return []string{name}
}

// simple reports whether a type is one number, so that it fits others that are.
func simple(t dto.MetricType) bool {
	return t == dto.MetricType_COUNTER || t == dto.MetricType_GAUGE || t == dto.MetricType_UNTYPED
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.Untyped.GetValue()
}

func setValue(m *dto.Metric, t dto.MetricType, value float64) {
	m.Counter, m.Gauge, m.Untyped = nil, nil, nil
	switch t {
	case dto.MetricType_COUNTER:
		m.Counter = &dto.Counter{Value: &value}
	case dto.MetricType_GAUGE:
		m.Gauge = &dto.Gauge{Value: &value}
	default:
		m.Untyped = &dto.Untyped{Value: &value}
	}
}

// ---- what a worker may have said

// valid reports whether a family and its labels have good names, and each of its
// series the value of its type: one bad series would be an error of the whole scrape.
func valid(f *dto.MetricFamily) bool {
	if !goodName(f.GetName()) {
		return false
	}
	for _, m := range f.Metric {
		if m == nil || !hasValue(m, f.GetType()) {
			return false
		}
		for _, l := range m.Label {
			if !goodName(l.GetName()) {
				return false
			}
		}
	}
	return true
}

func hasValue(m *dto.Metric, t dto.MetricType) bool {
	switch t {
	case dto.MetricType_COUNTER:
		return m.Counter != nil
	case dto.MetricType_GAUGE:
		return m.Gauge != nil
	case dto.MetricType_UNTYPED:
		return m.Untyped != nil
	case dto.MetricType_SUMMARY:
		return m.Summary != nil
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		return m.Histogram != nil
	}
	return false
}

// goodName reports whether name is one of a family or a label that shows as it is.
func goodName(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }) < 0
}

// reserved are the labels that each type makes by itself.
var reserved = map[dto.MetricType]string{
	dto.MetricType_HISTOGRAM: "le", dto.MetricType_GAUGE_HISTOGRAM: "le", dto.MetricType_SUMMARY: "quantile",
}

// label gives every series of f the worker's name, in the place of its name; false if
// the labels of one are no good.
func label(f *dto.MetricFamily, worker string) bool {
	for _, m := range f.Metric {
		for _, l := range m.Label {
			if strings.HasPrefix(l.GetName(), "__") || l.GetName() == reserved[f.GetType()] {
				return false
			}
			if v := l.GetValue(); odd(v) {
				v = printable(v)
				l.Value = &v
			}
		}
		slices.SortFunc(m.Label, byName)
		export(m)
		name := "worker"
		at, _ := slices.BinarySearchFunc(m.Label, &dto.LabelPair{Name: &name}, byName)
		m.Label = slices.Insert(m.Label, at, &dto.LabelPair{Name: &name, Value: &worker})
		for i := 1; i < len(m.Label); i++ {
			if m.Label[i].GetName() == m.Label[i-1].GetName() {
				return false // a scraper would refuse everything
			}
		}
	}
	return true
}

func byName(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) }

// export renames a label worker of the series', as Prometheus does.
func export(m *dto.Metric) {
	has := func(name string) int {
		return slices.IndexFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == name })
	}
	i := has("worker")
	if i < 0 {
		return
	}
	name := "exported_worker"
	for has(name) >= 0 {
		name = "exported_" + name
	}
	m.Label[i].Name = &name
	slices.SortFunc(m.Label, byName)
}

// odd reports whether a text has what must not reach a terminal. A newline is
// escaped in every format, but may be written raw by what reads it.
func odd(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return plain(s) != s
		}
	}
	return false
}

// printable is plain for texts of which most need nothing.
func printable(s string) string {
	if odd(s) {
		return plain(s)
	}
	return s
}
