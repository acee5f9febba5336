package clamav

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sluice/internal/verdict"
	"sluice/scanners"
)

// watch asks an endpoint again and again how it is, until ctx ends.
func (s *Scanner) watch(ctx context.Context, e *endpoint) {
	first := true
	for {
		_, err := s.check(ctx, e)
		if ctx.Err() != nil {
			return
		}
		s.report(e, err, first)
		first = false
		every := s.opts.healthEvery
		if err != nil {
			every = min(every, probeEvery)
		}
		next := time.NewTimer(every)
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-e.tripped:
			next.Stop()
			s.report(e, errors.New(e.lastTrouble()), first)
			select { // let the breaker become half open
			case <-ctx.Done():
				return
			case <-time.After(min(openFor+50*time.Millisecond, probeEvery)):
			}
		case <-next.C:
		}
	}
}

// check asks one endpoint with PING, then for its version, and, if its breaker is not
// closed, with a scan: the breaker closes when that is answered.
func (s *Scanner) check(ctx context.Context, e *endpoint) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := e.control(ctx, doPing); err != nil {
		e.answers.Store(false)
		e.note(err)
		return "", err
	}
	e.answers.Store(true)
	if version, err = e.control(ctx, getVersion); err != nil {
		e.note(err)
		return "", err
	}
	version = verdict.Printable(version, 128)
	e.version.Store(&version)
	if e.usable() {
		return version, nil
	}
	b := s.buffers.Get().(*buffer)
	defer s.buffers.Put(b)
	const harmless = "sluice asks whether clamd scans\n"
	_, err = e.guard(func() (answer, error) {
		return e.scanStream(ctx, strings.NewReader(harmless), int64(len(harmless)), b)
	})
	return version, err
}

// report tells the metrics how an endpoint is, and the log when that changed.
func (s *Scanner) report(e *endpoint, err error, first bool) {
	up := err == nil
	s.metrics.setUp(e.name, up)
	version := ""
	if v := e.version.Load(); up && v != nil {
		version = *v
		s.metrics.setAge(e.name, version, time.Now())
	}
	if was := e.up.Swap(up); was == up && !first {
		return
	}
	if up {
		s.log.Info("clamd answers", "scanner", Name, "endpoint", e.name, "version", version)
	} else {
		s.log.Warn("clamd is away", "scanner", Name, "endpoint", e.name, "err", err)
	}
}

// signatureTime reads when the signatures were made from a reply to VERSION such as
// "ClamAV 1.4.6/27463/Wed Nov 20 09:38:20 2024" (in clamd's own time zone, taken
// to be ours). It is not there if clamd has no official signatures.
func signatureTime(version string) (time.Time, bool) {
	parts := strings.Split(version, "/")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	t, err := time.ParseInLocation(time.ANSIC, strings.TrimSpace(parts[2]), time.Local)
	return t, err == nil
}

// Probe asks all endpoints at once.
func (s *Scanner) Probe(ctx context.Context) []scanners.Endpoint {
	all := make([]scanners.Endpoint, len(s.endpoints))
	var wg sync.WaitGroup
	for i, e := range s.endpoints {
		wg.Go(func() {
			version, err := s.check(ctx, e)
			all[i] = scanners.Endpoint{Scanner: Name, Address: e.name, Up: err == nil, Version: version}
			if err != nil {
				all[i].Detail = verdict.Printable(err.Error(), 256)
			} else if t, ok := signatureTime(version); ok {
				all[i].SignaturesDated = t
			} else {
				all[i].Detail = "no official signatures"
			}
		})
	}
	wg.Wait()
	return all
}

// Reload tells every endpoint to load its signatures anew. It goes on scanning
// meanwhile.
func (s *Scanner) Reload(ctx context.Context) error {
	var errs []error
	for _, e := range s.endpoints {
		_, err := e.control(ctx, doReload)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Stats returns what each endpoint says of its threads and queue, in the order of
// the options.
func (s *Scanner) Stats(ctx context.Context) ([]string, error) {
	all := make([]string, len(s.endpoints))
	var errs []error
	for i, e := range s.endpoints {
		var err error
		all[i], err = e.control(ctx, getStats)
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}
