package mail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"sluice/internal/verdict"
)

// Bounds of the tree. What lies past them is in the bytes of the part that was
// being read, and a finding says so.
const (
	maxDepth       = 64
	maxParts       = 2000
	maxPartHeader  = 256 << 10
	maxPartHeaders = 4 << 20 // of all parts together, with fieldCost a line
	fieldCost      = 64
	maxFindings    = 100
	maxBoundary    = 1 << 10
	parseBufferLen = 32 << 10
)

// Symbols of the reader's findings.
const (
	symbolTooDeep         = "MIME_TOO_DEEP"
	symbolTooManyParts    = "MIME_TOO_MANY_PARTS"
	symbolHeaderTooLong   = "MIME_HEADER_TOO_LONG"
	symbolNoBoundary      = "MIME_NO_BOUNDARY"
	symbolUnknownEncoding = "MIME_UNKNOWN_ENCODING"
	symbolEncodedMessage  = "MIME_ENCODED_MESSAGE"
	symbolPartial         = "MIME_PARTIAL_MESSAGE"
	symbolUnreadable      = "MIME_UNREADABLE"
	symbolTextTooLong     = "TEXT_TOO_LONG"
	symbolTooManyURIs     = "TEXT_TOO_MANY_URIS"
)

// treeResult is the parsing of a message, started once.
type treeResult struct {
	once sync.Once
	done chan struct{}
	tree *Tree
	err  error
}

// wait returns when no parser runs; none can be started afterwards.
func (r *treeResult) wait() {
	r.once.Do(func() { r.done, r.err = make(chan struct{}), ErrAborted; close(r.done) })
	<-r.done
}

// Tree returns the message's parts. It waits until the message is complete and
// parsed; the first call, which may come as soon as the header is there or before, starts
// the parsing, and later ones share its result. What could not be read is a
// finding of the tree, never an error; the error is ErrAborted, a read error of the
// spool, or ctx's.
func (m *Message) Tree(ctx context.Context) (*Tree, error) {
	m.parsing.once.Do(func() {
		m.parsing.done = make(chan struct{})
		go func() { // Close waits for it; Abort and Close end it
			defer close(m.parsing.done)
			m.parsing.tree, m.parsing.err = m.parse()
		}()
	})
	select {
	case <-m.parsing.done:
		return m.parsing.tree, m.parsing.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// waitHeader returns the header and where the body begins.
func (m *Message) waitHeader() (*Header, int64, error) {
	for {
		m.mu.RLock()
		done, size, bodyOff := m.headDone, m.size, m.bodyOff
		m.mu.RUnlock()
		if done {
			return &m.header, bodyOff, nil
		}
		if err := m.waitBeyond(context.Background(), size); err != nil {
			return nil, 0, err
		}
	}
}

func (m *Message) parse() (tree *Tree, err error) {
	header, bodyOff, err := m.waitHeader()
	if err != nil {
		return nil, err
	}
	p := newParser(m, header, bodyOff)
	defer func() {
		if cause := recover(); cause != nil {
			// The parser runs on a goroutine of its own, so no border of a caller
			// can hold this. The message must not come again and again: it is
			// unchecked.
			<-m.Done()
			tree = m.unparsed(header, bodyOff)
			tree.Panic = fmt.Sprintf("%v\n%s", cause, debug.Stack())
		}
	}()
	br, ok := m.spool.lines.Get().(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(nil, parseBufferLen)
	}
	br.Reset(m.Reader(context.Background(), bodyOff))
	if err := p.run(br); err != nil {
		return nil, err
	}
	br.Reset(nil)
	m.spool.lines.Put(br)
	if p.headers > smallMessage {
		m.charge(min(p.headers, maxPartHeaders))
	}
	return &Tree{Root: p.root, Findings: p.findings, message: m}, nil
}

// unparsed returns the tree of a message that could not be taken apart.
func (m *Message) unparsed(header *Header, bodyOff int64) *Tree {
	return &Tree{
		Root: &Part{Header: header, Type: "text/plain", Body: Range{bodyOff, m.Size()}, source: m},
		Findings: []verdict.Finding{{
			Symbol: symbolUnreadable, Kind: verdict.KindUnchecked, Scanner: verdict.FinderReader,
			Description: "The message could not be taken apart because of a fault in the reader",
		}},
		message: m,
	}
}

// parser splits a message in one pass over its lines. The parts that are open lie on
// a stack; a delimiter line of any of them closes those above it. So a multipart
// without its last delimiter, or one that is cut, loses nothing, and the work for a line
// is bounded by the depth.
type parser struct {
	source   io.ReaderAt
	root     *Part
	open     []*frame
	parts    int
	full     bool // maxParts was hit: nothing is split any more
	findings []verdict.Finding
	compared int   // delimiter comparisons, for tests of the bound
	headers  int64 // what the headers of all parts cost

	off     int64 // where the current line begins
	lastEnd int64 // length of the line end before it

	// The header section that is being read, if the top part is in its header.
	field      []byte
	fieldStart int64
}

// frame is an open part.
type frame struct {
	part *Part
	// boundary is "--" and the boundary of a multipart, nil otherwise.
	boundary []byte
	inHeader bool
	mboxLine bool // a "From " line may stand before the header
	digest   bool // parts are messages unless they say otherwise
	inside   bool // a multipart that has had a delimiter
	ended    bool // … and its last one
	text     textCount
	dashes   bool // a line of a multipart before that begins with "--"
	hint     bool // … and then a Content- field: a delimiter that was not declared
}

// textCount tells text from encoded data.
type textCount struct {
	on                   bool
	bytes, blanks, other int64
}

func (c *textCount) line(b []byte) {
	for _, x := range b {
		switch {
		case x == ' ' || x == '\t' || x == '\n':
			c.blanks++
		case x < ' ' && x != '\r' && x != '\f' || x > '~':
			c.other++
		}
	}
	c.bytes += int64(len(b))
}

// isText reports whether all is 7-bit text with words in it.
func (c *textCount) isText() bool { return c.other == 0 && c.blanks*20 >= c.bytes }

func newParser(source io.ReaderAt, header *Header, bodyOff int64) *parser {
	p := &parser{source: source, parts: 1, off: bodyOff}
	p.root = &Part{Header: header, Body: Range{bodyOff, bodyOff}, source: source}
	if header.Truncated {
		p.find(symbolHeaderTooLong, "", "The header is too long to be read as a whole")
	}
	p.open = append(p.open, &frame{part: p.root})
	p.describe(p.top())
	return p
}

func (p *parser) top() *frame { return p.open[len(p.open)-1] }

func (p *parser) find(symbol, path, description string) {
	p.findKind(verdict.KindUnchecked, symbol, path, description)
}

func (p *parser) findKind(kind verdict.Kind, symbol, path, description string) {
	if len(p.findings) >= maxFindings {
		return // the message is unchecked already
	}
	p.findings = append(p.findings, verdict.Finding{
		Symbol: symbol, Kind: kind, Description: description,
		Scanner: verdict.FinderReader, Part: path,
	})
}

// run reads the body to its end.
func (p *parser) run(br *bufio.Reader) error {
	amid := false
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			p.line(line, amid)
			p.off += int64(len(line))
			p.lastEnd = lineEnd(line)
		}
		amid = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !amid {
			if !errors.Is(err, io.EOF) {
				return err
			}
			p.closeTo(0, p.off)
			return nil
		}
	}
}

// lineEnd returns the length of a line's end.
func lineEnd(line []byte) int64 {
	switch {
	case bytes.HasSuffix(line, []byte("\r\n")):
		return 2
	case bytes.HasSuffix(line, []byte("\n")):
		return 1
	}
	return 0
}

// line takes a line, or a piece of one longer than the buffer; amid says that it is not
// its line's first piece.
func (p *parser) line(line []byte, amid bool) {
	if !amid && !p.full && len(line) > 2 && line[0] == '-' && line[1] == '-' {
		if i, last := p.delimiter(line); i >= 0 {
			p.cross(i, last, int64(len(line)))
			return
		}
	}
	f := p.top()
	if f.inHeader {
		p.headerLine(f, line, amid)
		return
	}
	if f.text.on {
		f.text.line(line)
	}
	if f.boundary != nil && !f.inside && !amid {
		if f.dashes && len(line) > 8 && bytes.EqualFold(line[:8], []byte("content-")) {
			f.hint = true
		}
		f.dashes = bytes.HasPrefix(line, []byte("--")) && len(line) > 4
	}
}

// delimiter returns the index of the open multipart whose delimiter the line
// is, and whether it is its last one; -1 if of none. The innermost wins.
func (p *parser) delimiter(line []byte) (int, bool) {
	line = bytes.TrimRight(line, " \t\r\n")
	for i := len(p.open) - 1; i >= 0; i-- {
		b := p.open[i].boundary
		p.compared++
		if len(b) <= 2 || !bytes.HasPrefix(line, b) {
			continue
		}
		switch string(line[len(b):]) {
		case "":
			return i, false
		case "--":
			return i, true
		}
	}
	return -1, false
}

// cross handles a delimiter line of n bytes of the open multipart i.
func (p *parser) cross(i int, last bool, n int64) {
	p.closeTo(i+1, max(p.off-p.lastEnd, p.top().part.Body.Start))
	f := p.open[i]
	if !f.inside {
		f.inside = true
		f.part.Preamble = Range{f.part.Body.Start, p.off}
	}
	if start := f.part.Epilogue.Start; f.ended && p.off-start > 2 {
		// What stands between a last delimiter and one that comes all the same is
		// read as a text.
		if !p.push(f.part, &frame{part: &Part{}}, start) {
			return // the epilogue goes on
		}
		p.endHeader(p.top(), start)
		p.closeTo(i+1, max(p.off-p.lastEnd, start))
	}
	if f.ended = last; last {
		f.part.Epilogue = Range{p.off + n, p.off + n}
		return
	}
	typ := ""
	if f.digest {
		typ = "message/rfc822"
	}
	if !p.push(f.part, &frame{part: &Part{Type: typ}}, p.off+n) {
		// All that follows is epilogue.
		f.ended, f.part.Epilogue = true, Range{p.off + n, p.off + n}
	}
}

// push opens a new part, that of f, below parent; its header begins at start.
// It reports whether there may be one more.
func (p *parser) push(parent *Part, f *frame, start int64) bool {
	if p.parts >= maxParts {
		p.full = true
		p.find(symbolTooManyParts, parent.Path, fmt.Sprintf("The message has more than %d parts; the rest was not taken apart", maxParts))
		return false
	}
	p.parts++
	path := strconv.Itoa(len(parent.Children) + 1)
	if parent.Path != "" {
		path = parent.Path + "." + path
	}
	f.part.Path, f.part.source = path, p.source
	f.part.Header = &Header{Range: Range{start, start}}
	f.part.Body = Range{start, start}
	f.inHeader = true
	parent.Children = append(parent.Children, f.part)
	p.open = append(p.open, f)
	p.field = p.field[:0]
	return true
}

// headerLine takes a line while the top part's header is being read.
func (p *parser) headerLine(f *frame, line []byte, amid bool) {
	mbox := f.mboxLine
	f.mboxLine = false
	if mbox && isMboxLine(line) {
		f.part.Header.Range = Range{p.off + int64(len(line)), p.off + int64(len(line))}
		f.mboxLine = line[len(line)-1] != '\n' // the rest of an overlong one
		return
	}
	_, _, isField := splitField(line)
	continues := amid || len(p.field) > 0 && (line[0] == ' ' || line[0] == '\t' || !isField && lostFold(p.field, line))
	switch {
	case continues:
	case isField:
		p.endField(f, p.off)
		p.fieldStart = p.off
	case len(bytes.TrimRight(line, "\r\n")) == 0:
		p.endField(f, p.off)
		p.endHeader(f, p.off+int64(len(line)))
		return
	default: // no field: the header ends before it
		p.endField(f, p.off)
		p.endHeader(f, p.off)
		// The line belongs to the body, and may begin a header of its own there.
		p.line(line, amid)
		return
	}
	p.headers += int64(len(line)) + fieldCost
	if p.off+int64(len(line))-f.part.Header.Range.Start > maxPartHeader || p.headers > maxPartHeaders {
		f.part.Header.Truncated = true
	}
	if !f.part.Header.Truncated {
		p.field = append(p.field, line...)
	} else if len(p.field) == 0 {
		p.field = append(p.field, ' ') // so that continuation lines are known as such
	}
}

// lostFold reports whether line, which is no field, is a parameter that belongs to the
// field before it and only lost the blank in front. Some programs that report
// failed deliveries write so.
func lostFold(field, line []byte) bool {
	name, value, ok := bytes.Cut(bytes.TrimRight(line, " \t\r\n"), []byte("="))
	return ok && len(name) > 0 && len(value) > 0 && !bytes.ContainsAny(name, " \t") &&
		bytes.HasSuffix(bytes.TrimRight(field, " \t\r\n"), []byte(";"))
}

// endField keeps the field that was read; end is where the next line begins.
func (p *parser) endField(f *frame, end int64) {
	f.part.Header.Range.End = end
	if len(p.field) > 1 {
		if name, value, ok := splitField(p.field); ok {
			f.part.Header.add(Field{Name: string(name), Value: string(value), Range: Range{p.fieldStart, end}})
		}
	}
	p.field = p.field[:0]
}

// endHeader ends the header of the top part; its body begins at off.
func (p *parser) endHeader(f *frame, off int64) {
	f.inHeader = false
	f.part.Body = Range{off, off}
	if f.part.Header.Truncated {
		p.find(symbolHeaderTooLong, f.part.Path, "The header of this part is too long to be read as a whole")
	}
	p.describe(f)
}

// describe reads what the header says of the part, and opens the message in a
// message/rfc822.
func (p *parser) describe(f *frame) {
	part := f.part
	part.describe()
	deep := len(p.open) >= maxDepth
	switch {
	case strings.HasPrefix(part.Type, "multipart/"):
		f.digest = part.Type == "multipart/digest"
		f.boundary = []byte("--" + strings.TrimRight(part.Params["boundary"], " \t"))
		switch {
		case len(f.boundary) > maxBoundary:
			f.boundary = nil
			p.find(symbolNoBoundary, part.Path, "The boundary of this multipart is too long; it was not taken apart")
		case deep:
			f.boundary = nil
			p.find(symbolTooDeep, part.Path, fmt.Sprintf("Parts are nested more than %d deep; this one was not taken apart", maxDepth))
		}
	case part.isMessage():
		switch {
		case deep:
			p.find(symbolTooDeep, part.Path, fmt.Sprintf("Messages are nested more than %d deep; this one was not taken apart", maxDepth))
		case !part.coding.isIdentity():
			p.find(symbolEncodedMessage, part.Path, "An attached message is in a transfer encoding, which it may not be; it was not taken apart")
		default:
			p.push(part, &frame{part: &Part{}, mboxLine: true}, part.Body.Start)
		}
	case part.Type == "message/partial":
		p.find(symbolPartial, part.Path, "This is one piece of a message that comes in several")
	}
	f.text.on = part.coding == codingUnknown
}

// closeTo closes all open parts from index n on; their bodies end at end.
func (p *parser) closeTo(n int, end int64) {
	for len(p.open) > n {
		f := p.top()
		if f.inHeader { // the part ends in its header
			end = max(end, p.off) // whose last line end is its own
			p.endField(f, end)
			opened := len(p.open)
			p.endHeader(f, end)
			if len(p.open) > opened {
				continue // an empty message in an empty message/rfc822
			}
		}
		p.closePart(f, end)
		p.open = p.open[:len(p.open)-1]
	}
}

func (p *parser) closePart(f *frame, end int64) {
	part := f.part
	part.Body.End = max(end, part.Body.Start)
	if n := len(part.Children); n > 0 {
		// An empty body begins after the line end that belongs to the delimiter.
		part.Body.End = max(part.Body.End, part.Children[n-1].Body.End)
	}
	switch {
	case f.ended:
		part.Body.End = max(part.Body.End, part.Epilogue.Start)
		part.Epilogue.End = part.Body.End
	case f.inside:
		part.Epilogue = Range{part.Body.End, part.Body.End}
	}
	switch {
	case strings.HasPrefix(part.Type, "multipart/") && part.IsLeaf() && f.boundary != nil:
		if f.hint || part.Body.Len() > 2 && !part.coding.isIdentity() {
			p.find(symbolNoBoundary, part.Path, "The parts of this multipart can't be told apart: its boundary does not occur")
		}
	case f.text.on && part.IsLeaf() && !f.text.isText():
		p.find(symbolUnknownEncoding, part.Path, "The content is in a transfer encoding that is not known")
	}
}
