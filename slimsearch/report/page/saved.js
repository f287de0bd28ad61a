// ---- a report that is a file: its data is in the page

drawAgain(JSON.parse(document.getElementById("data").textContent));
