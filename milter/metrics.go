package milter

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what the package counts.
type Metrics struct {
	connections  prometheus.Gauge
	malformed    *prometheus.CounterVec
	failed       *prometheus.CounterVec
	recipients   prometheus.Counter
	aborted      prometheus.Counter
	acceptErrors prometheus.Counter
}

// Values of the label reason of sluice_milter_failed_messages_total.
const (
	failedOverLimit  = "over_limit" // past the connection limit
	failedSpoolFull  = "spool_full" // no room in memory and on disk
	failedTooLarge   = "too_large"  // over the size limit, or too many header fields
	failedRecipients = "recipients" // too many, in local submission
	failedInternal   = "internal"   // a panic, or a gateway that could not begin
)

var failures = [...]string{failedOverLimit, failedSpoolFull, failedTooLarge, failedRecipients, failedInternal}

// NewMetrics makes the metrics and registers them with reg, unless it is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_milter_connections", Help: "Open connections of MTAs.",
		}),
		malformed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_milter_malformed_frames_total", Help: "Frames that broke the milter protocol and ended their session.",
		}, []string{"reason"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_milter_failed_messages_total", Help: "Messages that the session itself refused, without a verdict.",
		}, []string{"reason"}),
		recipients: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_milter_refused_recipients_total", Help: "Recipients past the limit of a message, answered 452.",
		}),
		aborted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_milter_lost_connections_total", Help: "Connections that ended while a message was under way.",
		}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_milter_accept_errors_total", Help: "Connections that could not be accepted, mostly for want of descriptors.",
		}),
	}
	for _, r := range malformedReasons {
		m.malformed.WithLabelValues(r)
	}
	for _, r := range failures {
		m.failed.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.connections, m.malformed, m.failed, m.recipients, m.aborted, m.acceptErrors)
	}
	return m
}
