package clamav

import (
	"encoding/binary"
	"io"
	"net"
	"os"
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
		measured(b, way, func() {
			if res, err := s.Scan(b.Context(), in); err != nil || !res.Complete {
				b.Fatal(res, err)
			}
		})
		measured(b, "bare "+way, bare(b, s.endpoints[0], []byte(body)))
	}
}

func measured(b *testing.B, name string, f func()) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		before := ownCPU()
		for b.Loop() {
			f()
		}
		b.ReportMetric(float64(ownCPU()-before)/float64(b.N)/1000, "cpu-us/op")
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
