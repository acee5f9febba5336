package milter

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what the package counts.
type Metrics struct {
	connections  prometheus.Gauge
	malformed    *prometheus.CounterVec
	refused      *prometheus.CounterVec
	aborted      prometheus.Counter
	acceptErrors prometheus.Counter
}

// Values of the label reason of sluice_milter_refused_total.
const (
	refusedOverLimit  = "over_limit" // a message past the connection limit
	refusedBegin      = "begin"      // a message that the gateway could not begin
	refusedRecipients = "recipients" // a recipient past the limit
)

// NewMetrics makes the metrics and registers them with reg, unless it is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_milter_connections", Help: "Open connections of MTAs.",
		}),
		malformed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_milter_malformed_frames_total", Help: "Frames that broke the milter protocol and ended their session.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_milter_refused_total", Help: "Messages (over_limit, begin) and recipients that were answered 4xx before the content was seen.",
		}, []string{"reason"}),
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
	for _, r := range []string{refusedOverLimit, refusedBegin, refusedRecipients} {
		m.refused.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.connections, m.malformed, m.refused, m.aborted, m.acceptErrors)
	}
	return m
}
