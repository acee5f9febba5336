package clamav

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of clamd's endpoints (DESIGN §8).
type metrics struct {
	up, age *prometheus.GaugeVec
	retries prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_scanner_up",
			Help: "1 if the scanner's server answered when it was last asked.",
		}, []string{"scanner", "endpoint"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_clamd_signature_age_seconds",
			Help: "Age of clamd's official signatures when it was last asked; absent if it has none.",
		}, []string{"endpoint"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_clamd_retries_total",
			Help: "Scans that were tried a second time.",
		}),
	}
	return m, errors.Join(register(reg, &m.up), register(reg, &m.age), register(reg, &m.retries))
}

// register registers *c, or puts the collector of an earlier scanner in its
// place.
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

func (m *metrics) setUp(endpoint string, up bool) {
	v := 0.0
	if up {
		v = 1
	}
	m.up.WithLabelValues(Name, endpoint).Set(v)
}

func (m *metrics) setAge(endpoint, version string, now time.Time) {
	t, ok := signatureTime(version)
	if !ok {
		m.age.DeleteLabelValues(endpoint)
		return
	}
	m.age.WithLabelValues(endpoint).Set(max(0, now.Sub(t).Seconds()))
}

// forget takes an endpoint out; a scanner that has it as well puts it in again
// when it next asks.
func (m *metrics) forget(endpoint string) {
	m.up.DeleteLabelValues(Name, endpoint)
	m.age.DeleteLabelValues(endpoint)
}
