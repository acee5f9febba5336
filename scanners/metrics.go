package scanners

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the pool (DESIGN §8).
type metrics struct {
	wait, duration *prometheus.HistogramVec
	errors         *prometheus.CounterVec
}

// scannerMetrics are those of one scanner.
type scannerMetrics struct {
	wait, duration prometheus.Observer
	errors         map[Reason]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		wait: histogram("sluice_queue_wait_seconds",
			"Time that complete messages waited for a free worker of the scanner."),
		duration: histogram("sluice_scanner_duration_seconds",
			"Time from the end of the message, or from the start of the scan if that came later, to the scanner's answer."),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_scanner_errors_total",
			Help: "Messages about which the scanner gave no definite answer.",
		}, []string{"scanner", "reason"}),
	}
	return m, errors.Join(register(reg, &m.wait), register(reg, &m.duration), register(reg, &m.errors))
}

func histogram(name, help string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                        []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 240},
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
	}, []string{"scanner"})
}

// register registers *c, or puts the collector that another pool registered
// under this name in its place.
func register[T prometheus.Collector](reg prometheus.Registerer, c *T) error {
	if reg == nil {
		return nil
	}
	err := reg.Register(*c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(T); ok {
			*c, err = old, nil
		}
	}
	return err
}

// scanner returns the metrics of one scanner, all reasons starting at zero.
func (m *metrics) scanner(name string) scannerMetrics {
	s := scannerMetrics{
		wait:     m.wait.WithLabelValues(name),
		duration: m.duration.WithLabelValues(name),
		errors:   make(map[Reason]prometheus.Counter, len(reasons)),
	}
	for _, r := range reasons {
		s.errors[r] = m.errors.WithLabelValues(name, string(r))
	}
	return s
}
