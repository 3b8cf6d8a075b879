import json, collections, sys

for n in ("farm", "models", "cluster"):
    d = json.load(open(f"/tmp/m/e_{n}.json"))
    f = collections.defaultdict(lambda: [0, 0, 0])
    for k, (c, w) in d.items():
        x = f[k.split("::")[0]]
        x[0] += c
        x[1] += w
        x[2] += 1
    print(
        n, "cpu", round(sum(c for c, _ in d.values())), "wall", round(sum(w for _, w in d.values()))
    )
    for k, (c, w, m) in sorted(f.items(), key=lambda i: -i[1][0])[:28]:
        print(f"  {c:6.1f} {w:6.1f} {m:4d} {k}")
