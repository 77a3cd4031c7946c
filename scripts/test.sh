#!/usr/bin/env bash
# Every check of the repository in order, for `make test`. A step that fails does
# not end the run, so that one run tells all; code that does not compile does.
# The last lines are gotestsum's, over all tests of all steps.
#
# Fuzzing is not one of the steps: go test runs every target's seeds and all that
# was ever found, and a search that comes upon something new now and then belongs
# to make fuzz-short and make fuzz.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

steps=(
  'vet'
  'fmt-check'
  'tidy-check'
  'lint'
  'race JSON=bin/test/unit.json'
  'bench-once'
  'cross'
  'build'
  'e2e JSON=bin/test/e2e.json'
  'e2e JSON=bin/test/e2e-tap.json DEVICE="tap queues=2"'
  'e2e JSON=bin/test/e2e-off.json DEVICE="tun queues=2 all-off"'
  'deploy-check'
  'docker-test'
)

# tree prints what would differ if a step changed a tracked file.
tree() { git -c safe.directory="$PWD" status --porcelain && git -c safe.directory="$PWD" diff HEAD; }

rm -rf bin/test && mkdir -p bin/test
before=$(tree)
failed=()
for i in "${!steps[@]}"; do
  eval "step=(${steps[i]})"
  printf '\n==> [%d/%d] make %s\n' $((i + 1)) "${#steps[@]}" "${step[*]}"
  start=$SECONDS
  if make --no-print-directory "${step[@]}" </dev/null 2>&1; then
    printf '==> %s passed in %d s\n' "${step[0]}" $((SECONDS - start))
  else
    printf '==> %s FAILED after %d s\n' "${step[0]}" $((SECONDS - start))
    failed+=("make ${step[0]}")
    [[ ${step[0]} != vet ]] || exit 1
  fi
done

echo
if [[ $(tree) != "$before" ]]; then
  echo 'the run changed the tree:'
  diff <(echo "$before") <(tree) | head -n 50
  failed+=('tree unchanged')
fi
# A test that is skipped proves nothing, so none may be.
if skipped=$(cat bin/test/*.json | jq -rR 'fromjson? | select(.Action == "skip" and .Test) | .Package + " " + .Test') &&
  [[ -n $skipped ]]; then
  printf 'skipped tests:\n%s\n' "$skipped"
  failed+=('no test skipped')
fi
((${#failed[@]} == 0)) || printf 'FAILED: %s\n' "${failed[@]}"

bin/gotestsum --format none --raw-command -- cat bin/test/*.json || exit 1
((${#failed[@]} == 0))
