package verdict

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Score is a fixed-point number in ten-thousandths of a point. SpamAssassin's
// scores have up to four decimals; whole numbers make a sum independent of the
// order it was added in. The zero value is a score of 0.
type Score int64

// Point is one whole point.
const Point Score = 10_000

// MaxScore bounds what ParseScore and Points accept, in both directions, so
// that sums of many findings can't overflow.
const MaxScore = 1_000_000_000 * Point

// Points converts a number of points, rounding to the nearest ten-thousandth;
// values outside ±MaxScore are cut to it and NaN is 0.
func Points(f float64) Score {
	switch {
	case math.IsNaN(f):
		return 0
	case f >= float64(MaxScore/Point):
		return MaxScore
	case f <= -float64(MaxScore/Point):
		return -MaxScore
	}
	return Score(math.Round(f * float64(Point)))
}

// ParseScore reads a decimal number such as "5", "-0.01" or "1e3". More than
// four decimals are rounded. NaN, infinities and numbers past MaxScore are
// errors.
func ParseScore(s string) (Score, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > float64(MaxScore/Point) {
		return 0, fmt.Errorf("%q is not a score (a number such as 5 or -0.25)", s)
	}
	return Points(f), nil
}

// Float returns the score in points.
func (s Score) Float() float64 { return float64(s) / float64(Point) }

// String prints the score with as few decimals as it needs: 5, 7.3, -0.0001.
func (s Score) String() string { return strconv.FormatFloat(s.Float(), 'f', -1, 64) }

// Fixed prints the score with the given number of decimals (0–4), rounded half
// away from zero, as SpamAssassin's "%2.1f" does for one.
func (s Score) Fixed(decimals int) string {
	unit := int64(1)
	for range 4 - decimals {
		unit *= 10
	}
	n, sign := int64(s), ""
	if n < 0 {
		n, sign = -n, "-"
	}
	n = (n + unit/2) / unit
	if n == 0 {
		sign = ""
	}
	digits := strconv.FormatInt(n, 10)
	if decimals == 0 {
		return sign + digits
	}
	for len(digits) <= decimals {
		digits = "0" + digits
	}
	return sign + digits[:len(digits)-decimals] + "." + digits[len(digits)-decimals:]
}

// MarshalJSON writes the score as a JSON number in points.
func (s Score) MarshalJSON() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalJSON reads a JSON number in points.
func (s *Score) UnmarshalJSON(b []byte) error {
	v, err := ParseScore(string(b))
	if err == nil {
		*s = v
	}
	return err
}
