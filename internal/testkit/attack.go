package testkit

import "strings"

// EICAR returns the 68 bytes of the anti-virus test file that every scanner must
// find (Eicar-Test-Signature). It is put together at run time.
func EICAR() string {
	return strings.Join([]string{"X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR", "-STANDARD-", "ANTIVIRUS", "-TEST-FILE!$H+H*"}, "")
}

// GTUBE returns the 68 characters that SpamAssassin's rule GTUBE scores with
// 1000. It is put together at run time.
func GTUBE() string {
	return strings.Join([]string{"XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE", "-STANDARD-", "ANTI-UBE-TEST-", "EMAIL*C.34X"}, "")
}
