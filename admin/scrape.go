package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// scrapeTime is how long a worker may take to answer a scrape.
	scrapeTime = time.Second
	// maxScrape bounds its answer, in bytes.
	maxScrape = 8 << 20
	// maxScrapes is how many scrapes a worker answers at once.
	maxScrapes = 4
)

// acceptMetrics is what workers are asked for: protobuf, which costs a third to read.
const acceptMetrics = `application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8,text/plain;version=0.0.4;q=0.5`

// answer is what one worker has answered to a scrape.
type answer struct {
	worker     string // its name
	generation int
	slot       int
	families   []*dto.MetricFamily
	took       time.Duration
	err        error // why there is nothing
}

// scrape asks the current worker of each slot, all at once. A program without this
// package, which cannot be asked, is left out.
func (w *workers) scrape(ctx context.Context, list []cluster.WorkerStats) (answers []answer) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	for _, one := range list {
		if owns(one) {
			answers = append(answers, answer{worker: one.Name, generation: one.Generation, slot: one.Slot})
		}
	}
	var wait sync.WaitGroup
	i := 0
	for _, one := range list {
		if !owns(one) {
			continue
		}
		a := &answers[i]
		i++
		wait.Go(func() {
			began := time.Now()
			a.families, a.err = w.ask(ctx, one.ID)
			if a.err != nil && ctx.Err() == nil {
				// It may have been replaced since the look at the list.
				if now, err := find(one.Name); err == nil && owns(now) && now.ID != one.ID {
					a.generation = now.Generation
					a.families, a.err = w.ask(ctx, now.ID)
				}
			}
			a.took = time.Since(began)
		})
	}
	wait.Wait()
	kept := answers[:0]
	for _, a := range answers {
		if !errors.Is(a.err, cluster.ErrNotSupported) {
			kept = append(kept, a)
		}
	}
	return kept
}

// ask returns the families of one worker: none if it has no metrics of its own.
func (w *workers) ask(ctx context.Context, id int) ([]*dto.MetricFamily, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+hostOf(id)+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", acceptMetrics)
	a, err := w.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, maxScrape+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxScrape:
		return nil, fmt.Errorf("more than %d bytes", maxScrape)
	case a.StatusCode == http.StatusNoContent:
		return nil, nil
	case a.StatusCode != http.StatusOK:
		return nil, errors.New(a.Status)
	}
	return parse(body, expfmt.ResponseFormat(a.Header))
}

// parse reads families.
func parse(b []byte, format expfmt.Format) (list []*dto.MetricFamily, err error) {
	switch format.FormatType() {
	case expfmt.TypeProtoDelim:
		for len(b) > 0 {
			one, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			b = b[n:]
			f := new(dto.MetricFamily)
			if err := proto.Unmarshal(one, f); err != nil {
				return nil, err
			}
			list = append(list, f)
		}
		return list, nil
	case expfmt.TypeTextPlain:
		p := expfmt.NewTextParser(model.LegacyValidation)
		all, err := p.TextToMetricFamilies(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		for _, f := range all {
			list = append(list, f)
		}
		return list, nil
	}
	return nil, errors.New("neither protobuf nor text")
}

// scraped answers the master's scrapes, in a worker. A handler that hangs does not
// get more and more to answer.
func scraped(metrics http.Handler) http.Handler {
	if metrics == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	places := make(chan struct{}, maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			metrics.ServeHTTP(w, r)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
}
