package clamav

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/testkit"
)

// BenchmarkScan compares scans of a 5 kB message with the barest client that there
// can be: connect, one write, read to the end. cpu-us/op is the CPU time of this
// process, clamd's not included.
func BenchmarkScan(b *testing.B) {
	c := testkit.StartClamd(b, testkit.ClamdOptions{TCP: true, DisableCache: true})
	sp := spool(b)
	body := strings.Repeat("a line of harmless text, as mail has\r\n", 5000/38)
	for _, endpoint := range []string{c.Endpoint(), c.TCPEndpoint()} {
		way := map[bool]string{true: "FILDES", false: "INSTREAM"}[endpoint == c.Endpoint()]
		s := scanner(b, Options{Endpoints: []string{endpoint}})
		in := input(message(b, sp, body), true)
		measured(b, c, way, func() {
			if res, err := s.Scan(b.Context(), in); err != nil || !res.Complete {
				b.Fatal(res, err)
			}
		})
		raw, err := io.ReadAll(in.Message.Reader(b.Context(), 0))
		if err != nil {
			b.Fatal(err)
		}
		measured(b, c, "bare "+way, bare(b, s.endpoints[0], raw))
		if way == "FILDES" {
			buf := new(buffer)
			measured(b, c, "INSTREAM on the unix socket", func() {
				m := in.Message
				if a, err := s.endpoints[0].scanStream(b.Context(), m.Reader(b.Context(), 0), m.Size(), buf); err != nil || a.kind != answerClean {
					b.Fatal(a, err)
				}
			})
		}
	}
}

func measured(b *testing.B, c *testkit.Clamd, name string, f func()) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		before, clamd := ownCPU(), clamdCPU(b, c)
		for b.Loop() {
			f()
		}
		b.ReportMetric(float64(ownCPU()-before)/float64(b.N)/1000, "cpu-us/op")
		b.ReportMetric(float64(clamdCPU(b, c)-clamd)/float64(b.N)/1000, "clamd-us/op")
	})
}

func bare(b *testing.B, e *endpoint, body []byte) func() {
	fd, err := unix.MemfdCreate("bare", 0)
	if err != nil {
		b.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "bare")
	b.Cleanup(func() { file.Close() })
	if _, err := file.Write(body); err != nil {
		b.Fatal(err)
	}
	stream := binary.BigEndian.AppendUint32([]byte("zINSTREAM\x00"), uint32(len(body)))
	stream = append(append(stream, body...), 0, 0, 0, 0)
	reply := make([]byte, 4096)
	return func() {
		conn, err := net.Dial(e.network, e.address)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		if u, ok := conn.(*net.UnixConn); ok {
			_, _, err = u.WriteMsgUnix([]byte("zFILDES\x00\x00"), unix.UnixRights(fd), nil)
		} else {
			_, err = conn.Write(stream)
		}
		if err != nil {
			b.Fatal(err)
		}
		if n, err := conn.Read(reply); !strings.HasSuffix(string(reply[:n]), ": OK\x00") {
			b.Fatalf("%q %v", reply[:n], err)
		}
		_, _ = io.Copy(io.Discard, conn) // clamd closes
	}
}

// ownCPU returns the CPU time of this process in nanoseconds.
func ownCPU() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// clamdCPU returns clamd's CPU time in nanoseconds, in steps of 10 ms.
func clamdCPU(b *testing.B, c *testkit.Clamd) int64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID()))
	if err != nil {
		b.Fatal(err)
	}
	// proc(5): utime and stime are fields 14 and 15, the third comes after ") ".
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+2:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	return (user + system) * 10_000_000
}
