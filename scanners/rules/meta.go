package rules

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bounds of a meta expression.
const (
	maxMeta      = 64 << 10 // bytes
	maxMetaDepth = 200      // nesting
)

// expr computes a value from those of rules, as Perl would: && and || give the
// operand that decided, comparisons and ! give 1 or 0.
type expr func(values []float64) float64

// metaParser reads SpamAssassin's meta expressions (Conf, "meta"). name gives
// the index of a rule's value.
type metaParser struct {
	src   string
	pos   int
	depth int
	name  func(string) int
}

// parseMeta compiles an expression; name is called for each rule in it.
func parseMeta(src string, name func(string) int) (expr, error) {
	if len(src) > maxMeta {
		return nil, fmt.Errorf("the expression has %d bytes (at most %d)", len(src), maxMeta)
	}
	p := &metaParser{src: src, name: name}
	e, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos < len(p.src) {
		return nil, fmt.Errorf("%q is not expected here", cut(p.src[p.pos:], 20))
	}
	return e, nil
}

func (p *metaParser) space() {
	for p.pos < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.pos]) >= 0 {
		p.pos++
	}
}

// metaOps are Perl's binary operators by rising precedence (perlop).
var metaOps = [...][]string{
	{"||"}, {"&&"}, {"|", "^"}, {"&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"+", "-"}, {"*", "/", "%"},
}

// operator reads one of the level's operators, if one stands here.
func (p *metaParser) operator(level int) string {
	p.space()
	s := p.src[p.pos:]
	for _, op := range metaOps[level] {
		if !strings.HasPrefix(s, op) {
			continue
		}
		if len(op) == 1 && len(s) > 1 && (op == "|" || op == "&") && s[1] == op[0] {
			continue // "||" binds looser than "|"
		}
		p.pos += len(op)
		return op
	}
	return ""
}

// binary reads an expression of operators of the level and above.
func (p *metaParser) binary(level int) (expr, error) {
	if level == len(metaOps) {
		return p.unary()
	}
	left, err := p.binary(level + 1)
	if err != nil {
		return nil, err
	}
	for {
		op := p.operator(level)
		if op == "" {
			return left, nil
		}
		right, err := p.binary(level + 1)
		if err != nil {
			return nil, err
		}
		left = combine(op, left, right)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// bits is a value as Perl's bit operators see it.
func bits(f float64) uint64 {
	if math.IsNaN(f) {
		return 0
	}
	return uint64(int64(max(-1<<62, min(1<<62, f))))
}

func combine(op string, a, b expr) expr {
	switch op {
	case "||":
		return func(v []float64) float64 {
			if x := a(v); x != 0 {
				return x
			}
			return b(v)
		}
	case "&&":
		return func(v []float64) float64 {
			if x := a(v); x == 0 {
				return x
			}
			return b(v)
		}
	case "|":
		return func(v []float64) float64 { return float64(bits(a(v)) | bits(b(v))) }
	case "^":
		return func(v []float64) float64 { return float64(bits(a(v)) ^ bits(b(v))) }
	case "&":
		return func(v []float64) float64 { return float64(bits(a(v)) & bits(b(v))) }
	case "==":
		return func(v []float64) float64 { return truth(a(v) == b(v)) }
	case "!=":
		return func(v []float64) float64 { return truth(a(v) != b(v)) }
	case "<=":
		return func(v []float64) float64 { return truth(a(v) <= b(v)) }
	case ">=":
		return func(v []float64) float64 { return truth(a(v) >= b(v)) }
	case "<":
		return func(v []float64) float64 { return truth(a(v) < b(v)) }
	case ">":
		return func(v []float64) float64 { return truth(a(v) > b(v)) }
	case "+":
		return func(v []float64) float64 { return a(v) + b(v) }
	case "-":
		return func(v []float64) float64 { return a(v) - b(v) }
	case "*":
		return func(v []float64) float64 { return a(v) * b(v) }
	case "/": // Perl dies, and SpamAssassin takes the rule as not hit
		return func(v []float64) float64 { return quotient(a(v), b(v)) }
	default: // "%"
		return func(v []float64) float64 { return remainder(a(v), b(v)) }
	}
}

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// remainder has the sign of b, as Perl's % has.
func remainder(a, b float64) float64 {
	m, n := int64(bits(a)), int64(bits(b))
	if n == 0 {
		return 0
	}
	if m %= n; m != 0 && (m < 0) != (n < 0) {
		m += n
	}
	return float64(m)
}

func (p *metaParser) unary() (expr, error) {
	if p.depth++; p.depth > maxMetaDepth {
		return nil, fmt.Errorf("the expression is nested more than %d deep", maxMetaDepth)
	}
	defer func() { p.depth-- }()
	p.space()
	if p.pos == len(p.src) {
		return nil, errors.New("the expression ends too early")
	}
	switch c := p.src[p.pos]; {
	case c == '!' || c == '-' || c == '+':
		p.pos++
		e, err := p.unary()
		switch {
		case err != nil:
			return nil, err
		case c == '!':
			return func(v []float64) float64 { return truth(e(v) == 0) }, nil
		case c == '-':
			return func(v []float64) float64 { return -e(v) }, nil
		}
		return e, nil
	case c == '(':
		p.pos++
		e, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		if p.space(); p.pos == len(p.src) || p.src[p.pos] != ')' {
			return nil, errors.New("a parenthesis is not closed")
		}
		p.pos++
		return e, nil
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	case isWord(c):
		return p.operand()
	default:
		return nil, fmt.Errorf("%q is not expected here", cut(p.src[p.pos:], 20))
	}
}

func (p *metaParser) number() (expr, error) {
	start := p.pos
	for p.pos < len(p.src) && strings.IndexByte("0123456789.", p.src[p.pos]) >= 0 {
		p.pos++
	}
	n, err := strconv.ParseFloat(p.src[start:p.pos], 64)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number", cut(p.src[start:p.pos], 20))
	}
	if p.pos < len(p.src) && isWord(p.src[p.pos]) {
		return nil, fmt.Errorf("%q is neither a number nor a rule", cut(p.src[start:p.pos+1], 20))
	}
	return func([]float64) float64 { return n }, nil
}

// operand reads a rule's name.
func (p *metaParser) operand() (expr, error) {
	start := p.pos
	for p.pos < len(p.src) && isWord(p.src[p.pos]) {
		p.pos++
	}
	name := p.src[start:p.pos]
	if p.space(); p.pos < len(p.src) && p.src[p.pos] == '(' {
		return nil, fmt.Errorf("needs the function %s(): %w", cut(name, 40), errUnsupported)
	}
	if name == "local_tests_only" { // rules ask no network in this engine
		return func([]float64) float64 { return 1 }, nil
	}
	i := p.name(name)
	return func(v []float64) float64 { return v[i] }, nil
}
