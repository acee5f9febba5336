// Command noop is the least that a milter on go-milter can be: it asks for no
// replies it can do without, and accepts every message. It is the floor that
// bench measures Sluice against.
package main

import (
	"fmt"
	"net"
	"net/textproto"
	"os"

	gomilter "github.com/emersion/go-milter"
)

type noop struct{ gomilter.NoOpMilter }

// Under the no-reply bits nothing may be answered: nil.

func (noop) Connect(string, string, uint16, net.IP, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}
func (noop) Helo(string, *gomilter.Modifier) (gomilter.Response, error)           { return nil, nil }
func (noop) MailFrom(string, *gomilter.Modifier) (gomilter.Response, error)       { return nil, nil }
func (noop) RcptTo(string, *gomilter.Modifier) (gomilter.Response, error)         { return nil, nil }
func (noop) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }
func (noop) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}
func (noop) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }

func main() {
	l, err := net.Listen("unix", os.Args[1])
	if err == nil {
		err = os.Chmod(os.Args[1], 0o666) // for Postfix's user
	}
	if err == nil {
		server := gomilter.Server{
			NewMilter: func() gomilter.Milter { return noop{} },
			Protocol: gomilter.OptNoConnReply | gomilter.OptNoHeloReply | gomilter.OptNoMailReply | gomilter.OptNoRcptReply |
				gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply | gomilter.OptNoUnknown | gomilter.OptNoData,
		}
		err = server.Serve(l)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
