package testkit

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process, or a group of processes, has used and holds.
type Usage struct {
	// CPU is user and system time, in steps of 10 ms, with that of children that
	// have ended.
	CPU time.Duration
	// RSS and PSS are resident bytes; PSS counts shared pages by their share and is
	// 0 where /proc doesn't tell it. PeakRSS is the highest RSS there was.
	RSS, PSS, PeakRSS int64
	// Threads and Files count threads and open descriptors, Processes processes.
	Threads, Files, Processes int
}

// clockTick is the unit of /proc/PID/stat, USER_HZ, 100 on every Linux system that
// Debian makes.
const clockTick = 10 * time.Millisecond

// Usage returns what the process and all others of its group have used. Those
// that ended are counted by their parents.
func (p *Process) Usage() (Usage, error) { return GroupUsage(p.pid) }

// ProcessUsage returns the usage of one process.
func ProcessUsage(pid int) (Usage, error) {
	s, err := readStat(pid)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{CPU: s.cpu, Threads: s.threads, Processes: 1}
	if u.RSS, u.PeakRSS, err = readStatus(pid); err != nil {
		return Usage{}, err
	}
	u.PSS = readPSS(pid)
	if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		u.Files = len(files)
	}
	return u, nil
}

// GroupUsage returns the sum over the processes of a group that run now.
func GroupUsage(pgid int) (Usage, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Usage{}, err
	}
	var sum Usage
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err != nil || s.pgrp != pgid {
			continue
		}
		u, err := ProcessUsage(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		sum.CPU += u.CPU
		sum.RSS, sum.PSS, sum.PeakRSS = sum.RSS+u.RSS, sum.PSS+u.PSS, sum.PeakRSS+u.PeakRSS
		sum.Threads, sum.Files, sum.Processes = sum.Threads+u.Threads, sum.Files+u.Files, sum.Processes+1
	}
	if sum.Processes == 0 {
		return sum, fmt.Errorf("no process in group %d", pgid)
	}
	return sum, nil
}

type stat struct {
	pgrp    int
	cpu     time.Duration
	threads int
}

// readStat reads /proc/PID/stat, proc_pid_stat(5); the name in brackets may hold
// anything.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	end := bytes.LastIndexByte(b, ')')
	words := strings.Fields(string(b[end+1:])) // from field 3 on
	if end < 0 || len(words) < 18 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var s stat
	if s.pgrp, err = strconv.Atoi(words[2]); err != nil {
		return stat{}, err
	}
	for _, word := range words[11:15] { // utime stime cutime cstime
		ticks, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return stat{}, err
		}
		s.cpu += time.Duration(ticks) * clockTick
	}
	s.threads, err = strconv.Atoi(words[17])
	return s, err
}

func readStatus(pid int) (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	return kilobytes(b, "VmRSS:"), kilobytes(b, "VmHWM:"), nil
}

func readPSS(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0 // older kernels and some sandboxes have none
	}
	return kilobytes(b, "Pss:")
}

// kilobytes returns the value of a line "Name:   123 kB" in bytes, 0 if there is none.
func kilobytes(b []byte, name string) int64 {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == name {
			n, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}
