package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// judged is what one log line of the daemon says.
type judged struct {
	Time        time.Time `json:"time"`
	Message     string    `json:"msg"`
	Duration    int64     `json:"duration"` // ns
	Class       string    `json:"class"`
	Disposition string    `json:"disposition"`
	Action      string    `json:"action"`
	ID          string    `json:"id"`
}

// account compares what was fed with what became of it, and prints it.
func (s *system) account(n int, outages []outage) error {
	refused, err := s.refused()
	if err != nil {
		return err
	}
	unseen, records, err := s.judgedWhileAway(outages)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost, wrong []string
	delivered, doubled := 0, 0
	for i := range n {
		id := subject("soak", i)
		infected := strings.HasSuffix(id, virusMark)
		switch times := s.arrived[id]; {
		case times == 0 && !refused[id]:
			lost = append(lost, id)
		case refused[id] != infected:
			wrong = append(wrong, id)
		case times > 0:
			delivered++
			doubled += times - 1
		}
	}
	fmt.Printf("\nfed %d, delivered %d (%d of them more than once), refused as infected %d, lost %d; accepted while clamd was away %d; infected ones delivered %d\nthe daemon has %d records of class clean, failed and virus: %v\n",
		n, delivered, doubled, len(refused), len(lost), len(unseen), len(s.infected), records["clean"]+records["failed"]+records["virus"], records)
	var errs []error
	for _, w := range []struct {
		what string
		ids  []string
	}{
		{"lost", lost}, {"delivered though infected, or refused though clean", wrong}, {"accepted while clamd was away", unseen},
		{"infected ones delivered", s.infected}, {"delivered without X-Virus-Status: Clean", s.unmarked},
	} {
		if len(w.ids) > 0 {
			errs = append(errs, fmt.Errorf("%s: %d, such as %s", w.what, len(w.ids), w.ids[0]))
		}
	}
	return errors.Join(errs...)
}

// refused reads from the feeder's log which messages were refused by a reply that
// names malware.
func (s *system) refused() (map[string]bool, error) {
	messageID := regexp.MustCompile(`cleanup\[\d+\]: (\w+): message-id=<(soak-[^@]+)@`)
	bounced := regexp.MustCompile(`smtp\[\d+\]: (\w+): .*status=bounced .*contains malware`)
	names, refused := map[string]string{}, map[string]bool{}
	err := lines(s.feeder.Log, func(line string) {
		if m := messageID.FindStringSubmatch(line); m != nil {
			names[m[1]] = m[2]
		} else if m := bounced.FindStringSubmatch(line); m != nil && names[m[1]] != "" {
			refused[names[m[1]]] = true
		}
	})
	return refused, err
}

// judgedWhileAway lists the records of messages that began and ended while clamd
// was away and were accepted all the same, and counts all records by class.
func (s *system) judgedWhileAway(outages []outage) (unseen []string, classes map[string]int, err error) {
	classes = map[string]int{}
	err = lines(s.daemonLog(), func(line string) {
		var j judged
		if json.Unmarshal([]byte(line), &j) != nil || j.Message != "message" {
			return
		}
		classes[j.Class]++
		began := j.Time.Add(-time.Duration(j.Duration))
		for _, o := range outages {
			if began.After(o.killed) && j.Time.Before(o.returned) && (j.Action == "accept" || j.Action == "tag" || j.Class == "clean") {
				unseen = append(unseen, j.ID)
			}
		}
	})
	return unseen, classes, err
}

func lines(path string, f func(string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		f(scanner.Text())
	}
	return scanner.Err()
}
