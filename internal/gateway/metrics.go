package gateway

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Build says which program this is, for sluice_build_info.
type Build struct{ Version, Revision string }

// Reasons of sluice_bypass_total: why a message went on although something
// stands against it.
const (
	bypassFailed    = "failed"    // a required scanner gave no answer; a policy delivers all the same
	bypassUnchecked = "unchecked" // content that could not be looked at
	bypassObserve   = "observe"   // a policy only observes
)

// Components of sluice_panics_total.
const (
	componentGateway = "gateway"
	componentMilter  = "milter"
)

// Metrics are the gateway's own, and those that nobody else has: panics of all
// components, reloads, the build. Safe for concurrent use.
type Metrics struct {
	reg           prometheus.Registerer
	messages      *prometheus.CounterVec
	abandoned     prometheus.Counter
	bypass        *prometheus.CounterVec
	compromise    prometheus.Counter
	split         prometheus.Counter
	panics        *prometheus.CounterVec
	unanswered    prometheus.Counter
	refused       *prometheus.CounterVec
	recordErrors  prometheus.Counter
	duration      prometheus.Histogram
	size          prometheus.Histogram
	lookup        *prometheus.HistogramVec
	reloadGood    prometheus.Gauge
	reloadSuccess prometheus.Gauge
	// unshipped stays 0 until there is a store.
	unshipped prometheus.Gauge
}

// histogram makes options for a histogram that is both native and classic.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// NewMetrics registers them; with a nil Registerer they are counted but not shown.
func NewMetrics(reg prometheus.Registerer, b Build) (*Metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		reg: reg,

		messages:     vec("sluice_messages_total", "Messages that were answered, by direction, the worst class of their recipients and what was done to them.", "direction", "class", "action"),
		abandoned:    counter("sluice_messages_abandoned_total", "Messages that ended before their end of message."),
		bypass:       vec("sluice_bypass_total", "Messages that went on although something stood against it, by reason.", "reason"),
		compromise:   counter("sluice_compromise_total", "Recipients whose copy shows something else than their policy says."),
		split:        counter("sluice_split_reject_total", "Recipients whose reject was carried out otherwise because others got the message."),
		panics:       vec("sluice_panics_total", "Panics that were recovered, by component.", "component"),
		unanswered:   counter("sluice_unanswered_total", "Messages whose reply could not be written."),
		refused:      vec("sluice_admission_refused_total", "Messages refused with 451 at MAIL FROM, by reason.", "reason"),
		recordErrors: counter("sluice_record_errors_total", "Messages answered with 451 because their record could not be kept."),
		duration: prometheus.NewHistogram(histogram("sluice_message_duration_seconds",
			"Time from the last body byte to the reply.", []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 240})),
		size: prometheus.NewHistogram(histogram("sluice_message_size_bytes",
			"Size of messages as the MTA holds them.", prometheus.ExponentialBuckets(1024, 4, 9))),
		lookup: prometheus.NewHistogramVec(histogram("sluice_policy_lookup_duration_seconds",
			"Time to look up the policies of one message's recipients, by source.", []float64{.000001, .000005, .00001, .00005, .0001, .0005, .001, .005, .01, .1, 1}), []string{"source"}),
		reloadGood:    gauge("sluice_config_last_reload_successful", "1 if the last reading of the configuration succeeded."),
		reloadSuccess: gauge("sluice_config_last_reload_success_timestamp_seconds", "When the configuration in force was read, in Unix time."),
		unshipped:     gauge("sluice_unshipped_sole_copies", "Messages of which this node alone has the only copy; 0 while there is no store."),
	}
	for _, d := range []envelope.Direction{envelope.Inbound, envelope.Outbound} {
		for _, c := range verdict.AllClasses() {
			for _, a := range verdict.AllActions() {
				m.messages.WithLabelValues(d.String(), c.String(), a.String())
			}
		}
	}
	for _, r := range []string{bypassFailed, bypassUnchecked, bypassObserve} {
		m.bypass.WithLabelValues(r)
	}
	for _, c := range []string{componentGateway, componentMilter, "scanner_reader", "scanner_clamav", "scanner_rules"} {
		m.panics.WithLabelValues(c)
	}
	for _, r := range []string{refusedSpool, refusedInFlight} {
		m.refused.WithLabelValues(r)
	}
	m.lookup.WithLabelValues(SourceFile)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_build_info", Help: "1, with the version of the program as labels.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	return m, register(reg, m.messages, m.abandoned, m.bypass, m.compromise, m.split, m.panics, m.unanswered, m.refused,
		m.recordErrors, m.duration, m.size, m.lookup, m.reloadGood, m.reloadSuccess, m.unshipped, info)
}

// Panicked counts a panic that was recovered (sluice_panics_total): scanners.Pool
// and the milter call it.
func (m *Metrics) Panicked(component string) { m.panics.WithLabelValues(component).Inc() }

// Reloaded tells whether the configuration could be read, at start and at each
// reload.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloadGood.Set(0)
		return
	}
	m.reloadGood.Set(1)
	m.reloadSuccess.SetToCurrentTime()
}

func register(reg prometheus.Registerer, cs ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// registerState registers the gauges that are read off the gateway itself.
func (g *Gateway) registerState(reg prometheus.Registerer) error {
	read := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	return register(reg,
		read("sluice_messages_in_flight", "Messages that are being worked on.", func() float64 { return float64(g.inFlight.Load()) }),
		read("sluice_spool_bytes", "Bytes that messages in flight take, in memory and on disk.", func() float64 {
			memory, disk := g.spooled()
			return float64(memory + disk)
		}),
		read("sluice_spool_disk_bytes", "Bytes that messages in flight take on disk.", func() float64 {
			_, disk := g.spooled()
			return float64(disk)
		}),
		read("sluice_policy_generation", "Generation of the policies in force, 0 while there are none.", func() float64 {
			if s := g.current().Policies(); s != nil {
				return float64(s.Generation)
			}
			return 0
		}),
		read("sluice_policy_stale_seconds", "For how long the policies in force have not been known to be current.", func() float64 {
			if stale := g.current().PolicyStale; stale != nil {
				return stale().Seconds()
			}
			return 0
		}),
	)
}

func (g *Gateway) spooled() (memory, disk int64) {
	if g.spool == nil {
		return 0, 0
	}
	return g.spool.Used()
}
