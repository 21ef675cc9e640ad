# Shortens the output of `cargo test`: one line for each test program; failures, warnings and errors stay whole.
# Used by scripts/test.sh, which keeps the whole output in a file.

/^     Running / || /^   Doc-tests / {
    program = $0
    sub(/^ +(Running )?/, "", program)
    sub(/ \(.*\/deps\//, " (", program)
    sub(/-[0-9a-f]+\)$/, ")", program)
    next
}
/^running [0-9]+ tests?$/ { next }
/^test .* \.\.\. ok$/ { next }
/^test .* \.\.\. FAILED$/ { print $0 "  in " program; fflush(); next }
/^$/ && !failing { next }
/^failures:$/ { failing = 1 }
/^test result: / {
    ran = $4 + $6 + $8
    failing = 0
    if (ran > 0) printf "%-6s %5d passed %3d failed %3d ignored  %8s  %s\n", ($6 > 0 ? "FAIL" : "ok"), $4, $6, $8, $NF, program
    fflush()
    next
}
{ print; fflush() }
