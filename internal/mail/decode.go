package mail

import (
	"bufio"
	"errors"
	"io"
)

const decodeBufferLen = 16 << 10

// decode returns r with the encoding taken off; size is the encoded length.
func (c coding) decode(r io.Reader, size int64) io.Reader {
	n := int(min(size+1, decodeBufferLen))
	switch c {
	case codingBase64:
		return &base64Reader{r: r, buf: make([]byte, n)}
	case codingQP:
		return &qpReader{r: bufio.NewReaderSize(r, max(n, 256))}
	}
	return r
}

// base64Reader decodes base64 as mail programs do: what is not of the alphabet
// is skipped, and after padding it begins anew (RFC 2045 §6.8 lets decoders
// choose; concatenated pieces occur).
type base64Reader struct {
	r      io.Reader
	buf    []byte
	in     []byte // of buf, not decoded yet
	acc    uint32
	bits   int
	err    error
	values [256]int8
	made   bool
}

func (d *base64Reader) Read(p []byte) (int, error) {
	if !d.made {
		d.values, d.made = base64Values(), true
	}
	n := 0
	for n < len(p) {
		if len(d.in) == 0 {
			if n > 0 {
				return n, nil
			}
			if d.err != nil {
				return 0, d.err
			}
			var k int
			k, d.err = d.r.Read(d.buf)
			d.in = d.buf[:k]
			if d.err != nil && !errors.Is(d.err, io.EOF) && k == 0 {
				return n, d.err
			}
			continue
		}
		used, wrote := d.decode(p[n:])
		d.in = d.in[used:]
		n += wrote
	}
	return n, nil
}

// decode decodes from d.in into p as far as both go.
func (d *base64Reader) decode(p []byte) (used, wrote int) {
	acc, bits := d.acc, d.bits
	for used < len(d.in) && wrote < len(p) {
		v := d.values[d.in[used]]
		used++
		if v >= 0 {
			acc = acc<<6 | uint32(v)
			if bits += 6; bits >= 8 {
				bits -= 8
				p[wrote] = byte(acc >> bits)
				wrote++
			}
		} else if v == base64Padding {
			acc, bits = 0, 0
		}
	}
	d.acc, d.bits = acc, bits
	return used, wrote
}

const (
	base64Junk    = -1
	base64Padding = -2
)

func base64Values() [256]int8 {
	var t [256]int8
	for i := range t {
		t[i] = base64Junk
	}
	for i := range int8(26) {
		t['A'+i] = i
		t['a'+i] = 26 + i
	}
	for i := range int8(10) {
		t['0'+i] = 52 + i
	}
	t['+'], t['/'], t['='] = 62, 63, base64Padding
	return t
}

// qpReader decodes quoted-printable: lower-case digits are taken, a '=' that
// begins nothing known stands for itself, lines may be of any length, and
// blanks between a '=' and its line end are skipped.
type qpReader struct {
	r *bufio.Reader
}

// maxSoftBlanks is how many blanks may stand between '=' and the line end.
const maxSoftBlanks = 128

func (d *qpReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if n > 0 && d.r.Buffered() == 0 {
			return n, nil
		}
		c, err := d.r.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if c == '=' {
			var skip bool
			if c, skip = d.escape(); skip {
				continue
			}
		}
		p[n] = c
		n++
	}
	return n, nil
}

// escape reads what follows a '=': the byte it stands for, or skip if it is a
// soft line break.
func (d *qpReader) escape() (c byte, skip bool) {
	next, err := d.r.Peek(2)
	if len(next) == 2 {
		hi, ok1 := hexDigit(next[0])
		lo, ok2 := hexDigit(next[1])
		if ok1 && ok2 {
			_, _ = d.r.Discard(2) // they are there
			return hi<<4 | lo, false
		}
	}
	if len(next) == 0 && err != nil {
		return 0, true // a '=' at the very end
	}
	for n := 1; n <= maxSoftBlanks; n++ {
		next, err = d.r.Peek(n)
		if err != nil {
			break
		}
		switch next[n-1] {
		case ' ', '\t':
			continue
		case '\n':
			_, _ = d.r.Discard(n) // they are there
			return 0, true
		case '\r':
			if next, _ = d.r.Peek(n + 1); len(next) == n+1 && next[n] == '\n' {
				n++
			}
			_, _ = d.r.Discard(n) // they are there
			return 0, true
		}
		break
	}
	return '=', false
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
