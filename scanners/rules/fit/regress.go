package main

import "math"

const (
	mark     = 5.0
	maxScore = 4.0  // of one rule: no rule marks a mail by itself
	stretch  = 1.6  // and not far above the score beside the rule, which
	slack    = 0.3  // knows mail that isn't in the fold
	minNice  = -1.5 // signs of ham can be forged
	rounds   = 4_000
	rate     = 0.05
	// pull draws a score back to the one beside the rule, as if so many mails
	// had spoken for it.
	pull = 0.002
	// hamWeight: one ham marked is as bad as so many spams let through.
	hamWeight = 25.0
	// margin is how far below the mark ham should stay.
	margin = 1.5
)

// weights make a small set of recent mail count as much as a large old one.
var weights = map[string]float64{"a": 1, "b": 6, "reports": 1, "handmade": 2}

// regress fits scores by logistic regression with bounds, beginning at prior.
func regress(mails []*letter, prior map[string]float64) map[string]float64 {
	w := make(map[string]float64, len(prior))
	seen := make(map[string]int)
	for name, s := range prior {
		w[name] = s
	}
	total := 0.0
	for _, m := range mails {
		total += weight(m)
		for _, h := range m.hits {
			seen[h]++
		}
	}
	for range rounds {
		gradient := make(map[string]float64, len(w))
		for _, m := range mails {
			s := m.score(w)
			var slope float64
			if m.spam {
				slope = -sigmoid(mark - s + margin/2)
			} else {
				slope = hamWeight * sigmoid(s-mark+margin)
			}
			for _, h := range m.hits {
				gradient[h] += weight(m) * slope
			}
		}
		for name, before := range prior {
			if seen[name] < 3 {
				continue
			}
			v := w[name] - rate*(gradient[name]*50/total+pull*50*(w[name]-before))
			if before < 0 {
				v = math.Min(0, math.Max(minNice, v))
			} else {
				v = math.Max(0, math.Min(math.Min(maxScore, before*stretch+slack), v))
			}
			w[name] = v
		}
	}
	for name, v := range w {
		w[name] = math.Round(v*10) / 10
	}
	return w
}

func weight(m *letter) float64 { return weights[m.set] }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-2*x)) }
