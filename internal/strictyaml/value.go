package strictyaml

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In a file it is a whole number of bytes or a number
// with a unit: 1048576, 512KiB, 100MiB, 1.5GiB; K, M, G and T mean the same as KiB,
// MiB, GiB and TiB. The units of a thousand (kB, MB) are refused, because people
// mean either by them.
type Size int64

var sizeUnits = []struct {
	name  string
	short string
	bytes int64
}{
	{"TiB", "T", 1 << 40}, {"GiB", "G", 1 << 30}, {"MiB", "M", 1 << 20}, {"KiB", "K", 1 << 10}, {"B", "", 1},
}

// ParseSize reads a size. It is never negative.
func ParseSize(s string) (Size, error) {
	bad := &ValueError{fmt.Sprintf("%s is not a size", quote(s)), "write bytes or a number with KiB, MiB, GiB or TiB, such as 100MiB"}
	number := strings.TrimRight(s, "BIKMGTbikmgt ")
	unit := strings.TrimSpace(s[len(number):])
	factor := int64(0)
	for _, u := range sizeUnits {
		if unit == u.name || unit == u.short {
			factor = u.bytes
		}
	}
	if number == "" || factor == 0 || strings.ContainsAny(number, "eExX+_") {
		return 0, bad
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64/factor {
		return Size(n * factor), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f*float64(factor) >= math.MaxInt64 || factor == 1 {
		return 0, bad
	}
	return Size(math.Round(f * float64(factor))), nil
}

// UnmarshalText reads a size (see ParseSize).
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// String prints the size with the largest unit that leaves a whole number.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.bytes > 1 && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

const day = 24 * time.Hour

// ParseDuration reads a duration as Go writes it, with d for days of 24 hours as
// well: 90s, 4h, 1h30m, 30d. It is never negative; a number needs its unit,
// save 0.
func ParseDuration(s string) (time.Duration, error) {
	bad := func(remedy string) error {
		return &ValueError{fmt.Sprintf("%s is not a duration", quote(s)), remedy}
	}
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, bad("a number needs its unit: " + quote(s+"s"))
	}
	var total time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || time.Duration(n) > math.MaxInt64/day {
			return 0, bad("write it as 90s, 4h, 1h30m or 30d")
		}
		total, rest = time.Duration(n)*day, after
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || rest[0] == '+' || rest[0] == '-' || total > math.MaxInt64-d {
			return 0, bad("write it as 90s, 4h, 1h30m or 30d")
		}
		total += d
	} else if s == "" {
		return 0, bad("write it as 90s, 4h, 1h30m or 30d")
	}
	return total, nil
}

// FormatDuration prints a duration so that ParseDuration reads it again, in the
// units people use: 240s, 4h, 30d.
func FormatDuration(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0 && d > 10*time.Minute:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d%time.Second == 0 && d < time.Hour:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return d.String()
}

// quote shows foreign text in a message, bounded.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}
